#!/usr/bin/env bash
# Usage: base.sh debian|postgres|mariadb|nginx
#
# Makes an image for the container tests from Debian's packages, without any
# registry, and prints its tag. The tag carries a hash of the recipe. What is
# there already, in the engine or as a tar under .cache/images, is not made
# again. Needs root, debootstrap and docker, and the machine's own apt sources.
set -euo pipefail

die() { echo "base.sh: error: $*" >&2; exit 1; }
note() { echo "base.sh: $*" >&2; }

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache=$here/../../.cache/images
suite=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
arch=$(dpkg --print-architecture)

# What a test looks at, and nothing to build with.
base_packages=procps,libcap2-bin,gosu,util-linux
postgres_data=/var/lib/postgresql/data
mariadb_data=/var/lib/mysql

recipe() { { echo "$suite $arch"; cat "$@"; } | sha256sum | cut -c1-12; }
debian_hash=$(recipe "$here/base.sh")
postgres_hash=$(recipe "$here/base.sh" "$here/postgres/docker-entrypoint.sh")
mariadb_hash=$(recipe "$here/base.sh" "$here/mariadb/docker-entrypoint.sh")
nginx_hash=$(recipe "$here/base.sh")

in_engine() { docker image inspect "$1" >/dev/null 2>&1; }

# The machine's mirror of the suite it runs itself.
mirror() {
	apt-get indextargets --format '$(REPO_URI) $(RELEASE) $(COMPONENT)' 'Created-By: Packages' |
		awk -v suite="$suite" '$2 == suite && $3 == "main" { print $1; exit }'
}

# pack ROOT TAR writes the tar whole or not at all, and drops the tars of
# older recipes.
pack() {
	tar -C "$1" --numeric-owner -cf "$2.new" \
		--exclude='./var/cache/apt/*' --exclude='./var/lib/apt/lists/*' --exclude='./var/log/*.log' \
		--exclude='./usr/share/doc/*' --exclude='./usr/share/locale/*' --exclude='./usr/share/man/*' \
		--exclude='./var/cache/debconf/*-old' .
	rm -f "${2%-*}"-*.tar
	mv "$2.new" "$2"
}

debian_tar=$cache/debian-$debian_hash.tar
make_debian_tar() {
	[ -e "$debian_tar" ] && return
	local from
	from=$(mirror)
	[ -n "$from" ] || die "the apt sources of this machine have no main component of '$suite'"
	note "debootstrap of $suite"
	debootstrap --variant=minbase --include="$base_packages" "$suite" "$work/root" "$from" >"$work/log" 2>&1 ||
		{ tail -20 "$work/log" >&2; die "debootstrap failed"; }
	pack "$work/root" "$debian_tar"
}

# install_packages NAME PACKAGE... makes $root: Debian with these on it.
install_packages() {
	local name=$1
	shift
	make_debian_tar
	note "installing $name"
	root=$work/$name
	mkdir "$root"
	tar -C "$root" --numeric-owner -xf "$debian_tar"
	cp --remove-destination -L /etc/resolv.conf "$root/etc/resolv.conf"
	# PostgreSQL's JIT and its LLVM are half of its size, perl's and libc's
	# locales much of the rest; the servers run without them.
	cat >"$root/etc/dpkg/dpkg.cfg.d/small" <<-'END'
		path-exclude=/usr/share/doc/*
		path-exclude=/usr/share/man/*
		path-exclude=/usr/share/locale/*
		path-exclude=/usr/share/i18n/*
		path-exclude=/usr/share/perl/*/Unicode/*
		path-exclude=/usr/lib/*/perl/*/auto/Encode/*
		path-exclude=/usr/lib/llvm-*
		path-exclude=/usr/lib/*/libLLVM*
		path-exclude=/usr/lib/*/libz3*
		path-exclude=/usr/lib/postgresql/*/lib/llvmjit*
		path-exclude=/usr/lib/postgresql/*/lib/bitcode/*
	END
	# The image starts without a data directory, and nothing starts in the chroot.
	mkdir -p "$root/etc/postgresql-common"
	echo 'create_main_cluster = false' >"$root/etc/postgresql-common/createcluster.conf"
	printf '#!/bin/sh\nexit 101\n' >"$root/usr/sbin/policy-rc.d"
	chmod 0755 "$root/usr/sbin/policy-rc.d"
	{
		chroot "$root" apt-get update -q
		DEBIAN_FRONTEND=noninteractive LC_ALL=C chroot "$root" apt-get install -q -y --no-install-recommends "$@"
	} >"$work/log" 2>&1 || { tail -20 "$work/log" >&2; die "installing $name failed"; }
}

postgres_tar=$cache/postgres-$postgres_hash.tar
make_postgres_tar() {
	[ -e "$postgres_tar" ] && return
	install_packages PostgreSQL postgresql
	# One place for its commands, whatever the version.
	ln -s "$(cd "$root" && echo usr/lib/postgresql/*/bin)" "$root/postgresql-bin"
	chroot "$root" install -d -o postgres -g postgres -m 0700 "$postgres_data"
	install -m 0755 "$here/postgres/docker-entrypoint.sh" "$root/usr/local/bin/docker-entrypoint.sh"
	pack "$root" "$postgres_tar"
}

mariadb_tar=$cache/mariadb-$mariadb_hash.tar
make_mariadb_tar() {
	[ -e "$mariadb_tar" ] && return
	# The core packages are the programs alone: the user, the directories and a
	# database would come with mariadb-server, which listens on localhost only.
	install_packages MariaDB mariadb-server-core mariadb-client-core
	chroot "$root" groupadd --system mysql
	chroot "$root" useradd --system --gid mysql --home-dir /nonexistent --shell /usr/sbin/nologin mysql
	chroot "$root" install -d -o mysql -g mysql -m 0755 "$mariadb_data" /run/mysqld
	install -m 0755 "$here/mariadb/docker-entrypoint.sh" "$root/usr/local/bin/docker-entrypoint.sh"
	pack "$root" "$mariadb_tar"
}

nginx_tar=$cache/nginx-$nginx_hash.tar
make_nginx_tar() {
	[ -e "$nginx_tar" ] && return
	# The official image has curl as well.
	install_packages nginx nginx ca-certificates curl
	rm "$root/etc/nginx/sites-enabled/default"
	# An import keeps the links: the log is the container's.
	ln -sf /dev/stdout "$root/var/log/nginx/access.log"
	ln -sf /dev/stderr "$root/var/log/nginx/error.log"
	pack "$root" "$nginx_tar"
}

# build TAG TAR MAKE CHANGE... imports what MAKE makes.
build() {
	local tag=$1 tar=$2 make=$3
	shift 3
	if ! in_engine "$tag"; then
		mkdir -p "$cache"
		# Packages of tests run side by side: one makes it, the others wait.
		exec 9>"$cache/lock"
		flock -w 900 9 || die "another run holds $cache/lock"
		if ! in_engine "$tag"; then
			work=$(mktemp -d "$cache/work.XXXXXX")
			trap 'rm -rf --one-file-system "$work"' EXIT
			"$make"
			docker import "$@" "$tar" "$tag" >&2
		fi
	fi
	echo "$tag"
}

path=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
case "${1:-}" in
debian)
	build "secret-init-test/debian:$debian_hash" "$debian_tar" make_debian_tar \
		--change "ENV PATH=$path" --change 'CMD ["bash"]'
	;;
postgres)
	# No VOLUME: the data directory stays in the writable layer, where
	# `docker export` and `docker diff` see it.
	build "secret-init-test/postgres:$postgres_hash" "$postgres_tar" make_postgres_tar \
		--change "ENV PATH=/postgresql-bin:$path" --change "ENV PGDATA=$postgres_data" \
		--change 'EXPOSE 5432' \
		--change 'ENTRYPOINT ["docker-entrypoint.sh"]' --change 'CMD ["postgres"]'
	;;
mariadb)
	build "secret-init-test/mariadb:$mariadb_hash" "$mariadb_tar" make_mariadb_tar \
		--change "ENV PATH=$path" --change 'EXPOSE 3306' \
		--change 'ENTRYPOINT ["docker-entrypoint.sh"]' --change 'CMD ["mariadbd"]'
	;;
nginx)
	build "secret-init-test/nginx:$nginx_hash" "$nginx_tar" make_nginx_tar \
		--change "ENV PATH=$path" --change 'EXPOSE 80' \
		--change 'CMD ["nginx", "-g", "daemon off;"]'
	;;
*)
	die "usage: base.sh debian|postgres|mariadb|nginx"
	;;
esac

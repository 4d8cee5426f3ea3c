//go:build integration

package servers

import (
	"archive/tar"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// DebianImage is the tag of an image with a small Debian: bash, coreutils,
// procps, util-linux, gosu, capsh and getpcaps. Making it takes half a minute
// and the network; it is kept for later runs.
func DebianImage(tb testing.TB) string {
	tb.Helper()
	return baseImage(tb, "debian")
}

// PostgresImage is the tag of an image with Debian's PostgreSQL on top of
// DebianImage, its commands on PATH, and an entry script that reads
// POSTGRES_PASSWORD_FILE without exporting it. It is kept for later runs.
func PostgresImage(tb testing.TB) string {
	tb.Helper()
	return baseImage(tb, "postgres")
}

// MariaDBImage is the tag of an image with Debian's MariaDB on top of
// DebianImage, and an entry script that sets root's password as the official
// image's does, with a temporary server. It is kept for later runs.
func MariaDBImage(tb testing.TB) string {
	tb.Helper()
	return baseImage(tb, "mariadb")
}

// NginxImage is the tag of an image with Debian's nginx, and curl, on top of
// DebianImage. It is kept for later runs.
func NginxImage(tb testing.TB) string {
	tb.Helper()
	return baseImage(tb, "nginx")
}

func baseImage(tb testing.TB, which string) string {
	tb.Helper()
	script := filepath.Join(Root(), "tools", "images", "base.sh")
	out, err := command(imageTimeout, nil, script, which)
	if err != nil {
		tb.Fatal(err)
	}
	if out.Code != 0 {
		tb.Fatalf("base.sh %s: exit code %d\n%s", which, out.Code, out.Stderr)
	}
	return strings.TrimSpace(out.Stdout)
}

// BuildStatic builds a command of this module ("./shim") as a static
// program, and gives its path. The program's name is the package's.
func BuildStatic(tb testing.TB, pkg string, flags ...string) string {
	tb.Helper()
	path := filepath.Join(tb.TempDir(), filepath.Base(pkg))
	args := append([]string{"CGO_ENABLED=0", "go", "-C", Root(), "build", "-trimpath", "-buildvcs=false", "-o", path}, flags...)
	out, err := command(imageTimeout, nil, "env", append(args, pkg)...)
	if err != nil {
		tb.Fatal(err)
	}
	if out.Code != 0 {
		tb.Fatalf("go build %s: exit code %d\n%s", pkg, out.Code, out.Stderr)
	}
	return path
}

// BuildShim builds the program as make build does, and gives its path.
func BuildShim(tb testing.TB) string {
	tb.Helper()
	path := filepath.Join(tb.TempDir(), "secret-init")
	out, err := command(imageTimeout, nil, "make", "-s", "-C", Root(), "build", "OUT="+path)
	if err != nil {
		tb.Fatal(err)
	}
	if out.Code != 0 {
		tb.Fatalf("make build: exit code %d\n%s", out.Code, out.Stderr)
	}
	return path
}

// BuildImage builds an image from a Dockerfile's text and gives its tag. files
// is the build context: a path in it, and the file or folder on this machine
// that it is a copy of. Everything is root's in the image, with its mode. The
// tag is removed when the test ends.
func BuildImage(tb testing.TB, dockerfile string, files map[string]string, flags ...string) string {
	tb.Helper()
	tag := dockerName()
	buildImage(tb, tag, dockerfile, files, flags...)
	dockerCleanup(tb, "rmi", tag)
	return tag
}

// ScratchImage is an image FROM scratch with nothing but one static program,
// as its entry point: /NAME, as the file is called.
func ScratchImage(tb testing.TB, program string) string {
	tb.Helper()
	return BuildImage(tb, scratchDockerfile(program), map[string]string{filepath.Base(program): program})
}

func scratchDockerfile(program string) string {
	name := filepath.Base(program)
	return fmt.Sprintf("FROM scratch\nCOPY %[1]s /%[1]s\nENTRYPOINT [\"/%[1]s\"]\n", name)
}

// keptScratchImage is ScratchImage under a tag that is made of the program's
// content, so that it is built once and kept.
func keptScratchImage(tb testing.TB, program string) string {
	tb.Helper()
	content, err := os.ReadFile(program)
	if err != nil {
		tb.Fatal(err)
	}
	name := filepath.Base(program)
	tag := fmt.Sprintf("%s/%s:%.6x", dockerLabel, name, sha256.Sum256(content))
	if out, err := command(dockerTimeout, nil, "docker", "image", "inspect", tag); err != nil || out.Code != 0 {
		buildImage(tb, tag, scratchDockerfile(program), map[string]string{name: program})
	}
	return tag
}

func buildImage(tb testing.TB, tag, dockerfile string, files map[string]string, flags ...string) {
	tb.Helper()
	reader, writer := io.Pipe()
	go func() { writer.CloseWithError(writeContext(writer, dockerfile, files)) }()
	defer func() { _ = reader.Close() }()
	docker(tb, imageTimeout, reader, append([]string{"build", "--quiet", "--tag", tag}, append(flags, "-")...)...)
}

// writeContext writes a build context. Times are left out, so that the
// engine's cache depends on content alone.
func writeContext(w io.Writer, dockerfile string, files map[string]string) error {
	out := tar.NewWriter(w)
	text := strings.NewReader(dockerfile)
	if err := writeEntry(out, &tar.Header{Name: "Dockerfile", Mode: 0o644, Size: text.Size(), Typeflag: tar.TypeReg}, text); err != nil {
		return err
	}
	for name, source := range files {
		err := filepath.Walk(source, func(path string, info os.FileInfo, err error) error {
			if err != nil {
				return err
			}
			inside, err := filepath.Rel(source, path)
			if err != nil {
				return err
			}
			return addFile(out, filepath.Join(name, inside), path, info)
		})
		if err != nil {
			return err
		}
	}
	return out.Close()
}

func addFile(out *tar.Writer, name, path string, info os.FileInfo) error {
	var target string
	if info.Mode()&os.ModeSymlink != 0 {
		var err error
		if target, err = os.Readlink(path); err != nil {
			return err
		}
	}
	header, err := tar.FileInfoHeader(info, target)
	if err != nil {
		return err
	}
	header.Name = name
	header.Uid, header.Gid, header.Uname, header.Gname = 0, 0, "root", "root"
	header.ModTime, header.AccessTime, header.ChangeTime = time.Time{}, time.Time{}, time.Time{}
	if !info.Mode().IsRegular() {
		return writeEntry(out, header, nil)
	}
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	return writeEntry(out, header, file)
}

func writeEntry(out *tar.Writer, header *tar.Header, content io.Reader) error {
	if err := out.WriteHeader(header); err != nil || content == nil {
		return err
	}
	_, err := io.Copy(out, content)
	return err
}

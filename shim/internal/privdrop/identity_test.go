package privdrop

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/moby/sys/capability"
)

// database writes a passwd and a group file; an empty one is not written.
func database(t *testing.T, passwd, group string) Database {
	t.Helper()
	dir := t.TempDir()
	db := Database{Passwd: filepath.Join(dir, "passwd"), Group: filepath.Join(dir, "group")}
	for path, content := range map[string]string{db.Passwd: passwd, db.Group: group} {
		if content == "" {
			continue
		}
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return db
}

// alpine has what gosu's tests look at in that image.
func alpine(t *testing.T) Database {
	return database(t, `root:x:0:0:root:/root:/bin/sh
bin:x:1:1:bin:/bin:/sbin/nologin
daemon:x:2:2:daemon:/sbin:/sbin/nologin
games:x:35:35:games:/usr/games:/sbin/nologin
guest:x:405:100:guest:/dev/null:/sbin/nologin
nobody:x:65534:65534:nobody:/:/sbin/nologin
`, `root:x:0:root,nobody
bin:x:1:root,bin,daemon,nobody
daemon:x:2:root,bin,daemon,nobody
games:x:35:nobody
users:x:100:games,nobody
nobody:x:65534:nobody
`)
}

// as makes the current user another one, for what defaults to it.
func as(t *testing.T, id Identity) {
	t.Helper()
	before := current
	current = func() Identity { return id }
	t.Cleanup(func() { current = before })
}

// The cases of gosu's own tests (Dockerfile.test-alpine in tianon/gosu),
// which run as nobody: seventeen users with their ids, thirteen homes, four
// refusals. ours says where the contract differs.
func TestGosuCases(t *testing.T) {
	as(t, Identity{UID: 65534, GID: 65534})
	const rootGroups, all = "0 1 2", "0 1 2 35 100 65534"
	for _, test := range []struct {
		spec             string
		uid, gid         int
		groups           string
		home, name, ours string
	}{
		{spec: "0", groups: rootGroups, home: "/root", name: "root"},
		{spec: "0:0", groups: "0", home: "/root", name: "root"},
		{spec: "root", groups: rootGroups, home: "/root", name: "root"},
		{spec: "0:root", groups: "0", home: "/root", name: "root"},
		{spec: "root:0", groups: "0", home: "/root", name: "root"},
		{spec: "root:root", groups: "0", home: "/root", name: "root"},
		{spec: "1000", ours: "write 1000:GROUP"},
		{spec: "0:1000", gid: 1000, groups: "1000", home: "/root", name: "root"},
		{spec: "1000:1000", uid: 1000, gid: 1000, groups: "1000", home: "/"},
		{spec: "root:1000", gid: 1000, groups: "1000", home: "/root", name: "root"},
		{spec: "1000:root", uid: 1000, groups: "0", home: "/"},
		{spec: "1000:daemon", uid: 1000, gid: 2, groups: "2", home: "/"},
		{spec: "games", uid: 35, gid: 35, groups: "35 100", home: "/usr/games", name: "games"},
		{spec: "games:daemon", uid: 35, gid: 2, groups: "2", home: "/usr/games", name: "games"},
		{spec: "0:", groups: rootGroups, home: "/root", name: "root"},
		{spec: "", uid: 65534, gid: 65534, groups: all, home: "/", name: "nobody"},
		{spec: ":0", uid: 65534, groups: "0", home: "/", name: "nobody"},
		// The thirteenth home is of a user whose ids are not in gosu's table.
		{spec: "1000:0", uid: 1000, groups: "0", home: "/"},
		{spec: "bogus", ours: `user "bogus" is not in`},
		{spec: "0day", ours: `user "0day" is not in`},
		{spec: "0:bogus", ours: `group "bogus" is not in`},
		{spec: "0:0day", ours: `group "0day" is not in`},
	} {
		id, err := alpine(t).Lookup(test.spec)
		if test.ours != "" {
			if err == nil || !strings.Contains(err.Error(), test.ours) {
				t.Errorf("%q: %+v, %v", test.spec, id, err)
			}
			continue
		}
		groups := strings.Trim(fmt.Sprint(id.Groups), "[]")
		if err != nil || id.UID != test.uid || id.GID != test.gid || groups != test.groups || id.Home != test.home || id.Name != test.name {
			t.Errorf("%q: %+v, %v", test.spec, id, err)
		}
	}
}

func TestLookup(t *testing.T) {
	const good = "app:x:1000:1001:App:/srv:/bin/sh\n"
	for _, test := range []struct {
		name, passwd, group, spec string
		want                      Identity
		err                       string
	}{
		{"scratch, by numbers", "", "", "1000:1000", Identity{UID: 1000, GID: 1000, Groups: []int{1000}, Home: "/"}, ""},
		{"scratch, root", "", "", "0:0", Identity{Groups: []int{0}, Home: "/"}, ""},
		{"scratch, no group", "", "", "1000", Identity{}, "write 1000:GROUP"},
		{"scratch, even for root", "", "", "0", Identity{}, "write 0:GROUP"},
		{"scratch, by name", "", "", "app", Identity{}, `user "app" is not in`},
		{"minus one", good, "", "-1", Identity{}, "from 0 to 2147483647"},
		{"minus one with a group", good, "", "-1:0", Identity{}, "from 0 to 2147483647"},
		{"minus one as a group", good, "", "app:-1", Identity{}, "from 0 to 2147483647"},
		{"a sign", good, "", "+1000", Identity{}, "from 0 to 2147483647"},
		{"the largest", "", "", "2147483647:2147483647", Identity{UID: 2147483647, GID: 2147483647, Groups: []int{2147483647}, Home: "/"}, ""},
		{"over 2^31", "", "", "2147483648:0", Identity{}, "from 0 to 2147483647"},
		{"what chown takes for leave as it is", "", "", "4294967295:0", Identity{}, "from 0 to 2147483647"},
		{"huge", "", "", "99999999999999999999:0", Identity{}, "from 0 to 2147483647"},
		{"huge in passwd", "app:x:4294967295:0::/:\n", "", "app", Identity{}, `user "app" is not in`},
		{"no uid", "app:x::1000::/:\n", "", "app", Identity{}, `user "app" is not in`},
		{"letters for a uid", "app:x:1ooo:1000::/:\n", "", "app", Identity{}, `user "app" is not in`},
		{"letters for a gid", "app:x:1000:staff::/:\n", "", "app", Identity{}, `user "app" is not in`},
		{"negative", "app:x:-1:0::/:\n", "", "app", Identity{}, `user "app" is not in`},
		{"too short", "app:x:1000\n", "", "app", Identity{}, `user "app" is not in`},
		{"colons missing", "app 1000 1000\n", "", "app", Identity{}, `user "app" is not in`},
		{"NIS", "+::::::\n", "", "+", Identity{}, `user "+" is not in`},
		{"comment", "#app:x:0:0::/:\n", "", "#app", Identity{}, `user "#app" is not in`},
		{"broken, then good", "app:x:O:0::/:\n" + good, "", "app", Identity{UID: 1000, GID: 1001, Groups: []int{1001}, Home: "/srv", Name: "app"}, ""},
		{"short but enough", "app:x:1000:1001\n", "", "app", Identity{UID: 1000, GID: 1001, Groups: []int{1001}, Home: "/", Name: "app"}, ""},
		{"a name that is a number", "1000:x:5:5::/five:\n", "", "1000", Identity{}, "write 1000:GROUP"},
		{"number with an entry", good, "db:x:70:app,other\n", "1000", Identity{UID: 1000, GID: 1001, Groups: []int{70, 1001}, Home: "/srv", Name: "app"}, ""},
		{"name of the second with one uid", "root:x:0:0::/root:\ntoor:x:0:0::/toor:\n", "", "toor", Identity{Groups: []int{0}, Home: "/toor", Name: "toor"}, ""},
		{"supplementary", good, "z:x:9:app\nown:x:1001:\ndb:x:70:other,app\n", "app", Identity{UID: 1000, GID: 1001, Groups: []int{9, 70, 1001}, Home: "/srv", Name: "app"}, ""},
		{"a group without members", good, "db:x:70\n", "app:db", Identity{UID: 1000, GID: 70, Groups: []int{70}, Home: "/srv", Name: "app"}, ""},
		{"a broken group", good, "db:x::app\n", "app:db", Identity{}, `group "db" is not in`},
		{"after a long line", good, "big:x:9:" + strings.Repeat("someone,", 1<<14) + "app\ndb:x:70:app\n", "app", Identity{UID: 1000, GID: 1001, Groups: []int{9, 70, 1001}, Home: "/srv", Name: "app"}, ""},
	} {
		got, err := database(t, test.passwd, test.group).Lookup(test.spec)
		if test.err != "" {
			if err == nil || !strings.Contains(err.Error(), test.err) {
				t.Errorf("%s: %+v, %v", test.name, got, err)
			}
		} else if err != nil || got.UID != test.want.UID || got.GID != test.want.GID || got.Home != test.want.Home || got.Name != test.want.Name || !slices.Equal(got.Groups, test.want.Groups) {
			t.Errorf("%s: %+v, %v", test.name, got, err)
		}
	}
}

func TestLookupOne(t *testing.T) {
	db := alpine(t)
	for _, test := range []struct {
		lookup func(string) (int, error)
		name   string
		want   int
		err    string
	}{
		{db.LookupUser, "games", 35, ""},
		{db.LookupUser, "1000", 1000, ""},
		{db.LookupUser, "0", 0, ""},
		{db.LookupUser, "users", 0, `user "users" is not in`},
		{db.LookupUser, "games:users", 0, "is not in"},
		{db.LookupUser, "", 0, "is not in"},
		{db.LookupUser, "-1", 0, "from 0 to 2147483647"},
		{db.LookupUser, "4294967295", 0, "from 0 to 2147483647"},
		{db.LookupGroup, "users", 100, ""},
		{db.LookupGroup, "1000", 1000, ""},
		{db.LookupGroup, "guest", 0, `group "guest" is not in`},
		{db.LookupGroup, "", 0, "is not in"},
		{db.LookupGroup, "-1", 0, "from 0 to 2147483647"},
		{db.LookupGroup, "4294967295", 0, "from 0 to 2147483647"},
	} {
		got, err := test.lookup(test.name)
		if test.err == "" && (err != nil || got != test.want) || test.err != "" && (err == nil || !strings.Contains(err.Error(), test.err)) {
			t.Errorf("%q: %d, %v", test.name, got, err)
		}
	}
	if _, err := (Database{Passwd: t.TempDir(), Group: "/none"}).Lookup("app"); err == nil || !strings.Contains(err.Error(), "is a directory") {
		t.Error("a passwd file that cannot be read passes for an absent one")
	}
}

func TestEnvironment(t *testing.T) {
	env := Identity{UID: 1, Home: "/"}.Environment()
	if len(env) != 1 || env["HOME"] != "/" {
		t.Error(env)
	}
	env = Identity{UID: 1, Home: "/srv", Name: "app"}.Environment()
	if len(env) != 3 || env["USER"] != "app" || env["LOGNAME"] != "app" {
		t.Error(env)
	}
}

func TestParseCapabilities(t *testing.T) {
	caps, err := ParseCapabilities([]string{"net_bind_service", "CAP_CHOWN", "Cap_Sys_Ptrace", " IPC_LOCK "})
	want := []capability.Cap{capability.CAP_NET_BIND_SERVICE, capability.CAP_CHOWN, capability.CAP_SYS_PTRACE, capability.CAP_IPC_LOCK}
	if err != nil || !slices.Equal(caps, want) {
		t.Errorf("%v, %v", caps, err)
	}
	for _, name := range []string{"", "net_bind", "ALL", "10", "cap_"} {
		if caps, err := ParseCapabilities([]string{name}); err == nil || !strings.Contains(err.Error(), "unknown capability") {
			t.Errorf("%q: %v, %v", name, caps, err)
		}
	}
}

//go:build integration

package main

import (
	"encoding/json"
	"flag"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"secret-init/tools/servers"
)

var writeGolden = flag.Bool("write-golden", false, "write the golden files in testdata anew")

// golden compares text with a file of testdata.
func golden(t *testing.T, name, text string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *writeGolden {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if text == string(want) {
		return
	}
	got, wanted := strings.Split(text, "\n"), strings.Split(string(want), "\n")
	i := 0
	for i < min(len(got), len(wanted)) && got[i] == wanted[i] {
		i++
	}
	// Past the end of the shorter one, that is an empty line.
	got, wanted = append(got, ""), append(wanted, "")
	t.Errorf("line %d is not as in %s (if that is right: go test -write-golden, then look at git diff)\n got %s\nwant %s",
		i+1, path, got[min(i, len(got)-1)], wanted[min(i, len(wanted)-1)])
}

// password has whatever an encoder, a shell or a trim might change.
const password = " p\"a'$s\\s=wörd%23\r\n\n"

// bed is what the container tests share: images with the program in them,
// and a SOPS file, so that most need neither a server nor a network.
type bed struct {
	// debian has the users app (1234, with the group extra, 2001) and
	// postgres; scratch has nothing but the program and the payload. Both
	// hold /etc/app/secrets.enc.yaml, and start the payload as a witness.
	debian, scratch, postgres string
	program                   string
	key                       servers.AgeKey
}

const entryPoint = `
COPY secret-init payload /
COPY secrets.enc.yaml /etc/app/
ENTRYPOINT ["/secret-init", "--"]
`

func newBed(t *testing.T) *bed {
	t.Helper()
	b := &bed{key: servers.NewAgeKey(t)}
	// -s -w as make build has it: a smaller image is a faster one.
	shim := servers.BuildShim(t)
	b.program = filepath.Join(filepath.Dir(shim), "secret-init")
	if err := os.Rename(shim, b.program); err != nil {
		t.Fatal(err)
	}
	secrets := filepath.Join(t.TempDir(), "secrets.enc.yaml")
	plain, err := json.Marshal(map[string]any{"password": password, "user": "app"})
	if err != nil {
		t.Fatal(err)
	}
	b.key.Sops().EncryptFile(t, secrets, "yaml", plain)
	if err := os.Chmod(secrets, 0o644); err != nil {
		t.Fatal(err)
	}
	files := map[string]string{
		"secret-init":      b.program,
		"payload":          servers.BuildStatic(t, "./tools/images/payload"),
		"secrets.enc.yaml": secrets,
	}
	witness := `CMD ["/payload", "witness", "wait"]` + "\n"
	b.debian = servers.BuildImage(t, "FROM "+servers.DebianImage(t)+`
RUN groupadd --gid 2001 extra && useradd --uid 1234 --groups extra --create-home app
`+entryPoint+witness, files)
	b.scratch = servers.BuildImage(t, "FROM scratch\n"+entryPoint+witness, files)
	b.postgres = servers.BuildImage(t, "FROM "+servers.PostgresImage(t)+entryPoint+
		`CMD ["docker-entrypoint.sh", "postgres"]`+"\n", files)
	return b
}

// env are the variables of a start that takes DB_PASSWORD from the image's
// SOPS file.
func (b *bed) env(more ...string) []string {
	return append([]string{"DB_PASSWORD=sops:/etc/app/secrets.enc.yaml#password", "SOPS_AGE_KEY=" + b.key.Identity}, more...)
}

// testimony is what the payload's step "witness" prints.
type testimony struct {
	Env      map[string]string
	Cwd      string
	Status   map[string]string
	Dumpable int
	Open     map[string]string
	Secrets  map[string]struct {
		Error, Value, Real, Filesystem, Options, Mode, Owner, Dir string
		Entries, Writable                                         []string
		Seals                                                     int
	}
}

// testimonies are what the payload told in a container's starts so far.
func testimonies(t *testing.T, c *servers.Container) (all []testimony) {
	t.Helper()
	for line := range strings.Lines(c.Logs().Stdout) {
		text, ok := strings.CutPrefix(line, "witness: ")
		if !ok {
			continue
		}
		var w testimony
		if err := json.Unmarshal([]byte(text), &w); err != nil {
			t.Fatal(err)
		}
		all = append(all, w)
	}
	return all
}

// witness runs a container until its payload waits, and gives what that saw.
func witness(t *testing.T, spec servers.RunSpec) (*servers.Container, testimony) {
	t.Helper()
	c := servers.RunContainer(t, spec)
	c.WaitLog("waiting", 1)
	return c, testimonies(t, c)[0]
}

// again restarts the container and gives what the payload saw this time.
func again(t *testing.T, c *servers.Container) testimony {
	t.Helper()
	before := strings.Count(c.Logs().Stdout, "waiting")
	c.Restart()
	c.WaitLog("waiting", before+1)
	all := testimonies(t, c)
	return all[len(all)-1]
}

// variables are the names in the environment but for those that the engine sets.
func (w testimony) variables() []string {
	return slices.DeleteFunc(slices.Sorted(maps.Keys(w.Env)), func(name string) bool {
		return name == "HOSTNAME" || name == "PATH"
	})
}

var shmName = regexp.MustCompile(`/dev/shm/secret-init-[A-Z2-7]{26}`)

// normal takes the random name out of a text.
func normal(text string) string {
	return shmName.ReplaceAllString(text, "/dev/shm/secret-init-*")
}

// TestContainers is the program in real containers: each part is a file.
func TestContainers(t *testing.T) {
	b := newBed(t)
	for name, test := range map[string]func(*testing.T, *bed){
		"matrix":   testMatrix,
		"existing": testExisting,
		"postgres": testPostgres,
		"pid 1":    testPID1,
		"refresh":  testRefreshed,
		"removal":  testRemoval,
		"signals":  testContainerSignals,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, b)
		})
	}
}

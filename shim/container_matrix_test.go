//go:build integration

package main

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"text/tabwriter"

	"secret-init/tools/servers"
)

// platforms are the ways to start a container: docker run's flags.
var platforms = []struct {
	image string
	flags string
}{
	{"debian", ""},
	{"debian", "--tmpfs /run/secrets"},
	{"debian", "--tmpfs /run/secrets:uid=1000,mode=0700"},
	{"debian", "--read-only"},
	{"debian", "--user 1000"},
	{"debian", "--user 1000:1000"},
	{"debian", "--user 1000 --ipc none"},
	{"debian", "--user 1000 --tmpfs /run/secrets"},
	{"debian", "--user 1000 --tmpfs /run/secrets:uid=1000,mode=0700"},
	{"debian", "--cap-drop ALL"},
	{"debian", "--cap-drop ALL --cap-add CHOWN --cap-add SETUID --cap-add SETGID"},
	{"debian", "--cap-add SYS_ADMIN"},
	{"debian", "--ipc none"},
	{"debian", "--ipc host"},
	{"debian", "--security-opt no-new-privileges"},
	{"scratch", ""},
	{"scratch", "--user 1000 --read-only"},
}

// users are the values of --user; "" is none.
var users = []string{"", "app", "1000:1000"}

// deliveries are the values of --deliver.
var deliveries = []string{"file", "memfd"}

// cell is what came of one start, and of another one after it.
type cell struct {
	row, restarted string
	// said is what secret-init wrote.
	said string
}

// testMatrix starts the payload in every combination, looks, restarts the
// container and looks again.
func testMatrix(t *testing.T, b *bed) {
	var mu sync.Mutex
	cells := map[string]cell{}
	var order []string
	t.Run("cells", func(t *testing.T) {
		for _, platform := range platforms {
			for _, user := range users {
				for _, delivery := range deliveries {
					name := strings.Join([]string{platform.image, cmp.Or(platform.flags, "no flags"), cmp.Or(user, "-"), delivery}, "\t")
					order = append(order, name)
					t.Run(name, func(t *testing.T) {
						t.Parallel()
						spec := servers.RunSpec{Image: b.debian, Env: b.env("SECRET_INIT_DELIVER=" + delivery), Flags: strings.Fields(platform.flags)}
						if platform.image == "scratch" {
							spec.Image = b.scratch
						}
						if user != "" {
							spec.Env = append(spec.Env, "SECRET_INIT_USER="+user)
						}
						// Memory does not outlast a container's run: nothing
						// of it can be there after a restart.
						got := try(t, spec, delivery == "file")
						mu.Lock()
						defer mu.Unlock()
						cells[name] = got
					})
				}
			}
		}
	})
	if t.Failed() {
		return
	}
	golden(t, "matrix.golden", render(order, cells))
	if left := leftInShm(t); left != nil {
		t.Errorf("with --ipc host something was left in the machine's /dev/shm: %q", left)
	}
}

// leftInShm lists the files of this machine's /dev/shm that hold the secret.
// Other tests have directories there as well, so that names say nothing.
func leftInShm(t *testing.T) (left []string) {
	t.Helper()
	paths, err := filepath.Glob("/dev/shm/secret-init-*/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range paths {
		if content, err := os.ReadFile(path); err == nil && string(content) == password {
			left = append(left, path)
		}
	}
	return left
}

// try starts a container, and again after a restart, and looks both times.
func try(t *testing.T, spec servers.RunSpec, restart bool) cell {
	c := servers.RunContainer(t, spec)
	servers.WaitFor(t, "the payload or the end", func(context.Context) bool {
		running := c.Running()
		return strings.Contains(c.Logs().Stdout, "waiting") || !running
	})
	if !c.Running() {
		code := c.Wait()
		first := c.Logs()
		if first.Stdout != "" {
			t.Errorf("exit code %d, and yet the command was started:\n%s", code, first.Stdout)
		}
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		again := c.Wait()
		second := strings.TrimPrefix(c.Logs().Stderr, first.Stderr)
		if again != code || normal(second) != normal(first.Stderr) {
			t.Errorf("exit code %d, started again %d:\n%s\n%s", code, again, first.Stderr, second)
		}
		return cell{row: fmt.Sprintf("exit %d", code) + strings.Repeat("\t", columns-1), restarted: "the same", said: first.Stderr}
	}
	said := c.Logs().Stderr
	first := row(t, testimonies(t, c)[0])
	second, starts := "", 1
	if restart {
		starts = 2
		if second = row(t, again(t, c)); second == first {
			second = "the same"
		} else {
			second = "after a restart: " + strings.ReplaceAll(second, "\t", " | ")
		}
	}
	c.Kill("TERM")
	if code := c.Wait(); code != 0 || strings.Count(c.Logs().Stdout, "terminated") != starts {
		t.Errorf("after TERM: exit code %d\n%s", code, c.Logs().Stdout)
	}
	if all := c.Logs().Stderr; all != strings.Repeat(said, starts) {
		t.Errorf("the first start said %q, all together %q", said, all)
	}
	return cell{row: first, said: said, restarted: second}
}

// row is what matters of a testimony. Values that must be so in every cell
// are not in it, but checked.
func row(t *testing.T, w testimony) string {
	t.Helper()
	s := w.Secrets["DB_PASSWORD_FILE"]
	if s.Error != "" || s.Value != password {
		t.Errorf("the file has %q, %s", s.Value, s.Error)
	}
	if _, left := w.Env["DB_PASSWORD"]; left || w.Env["SOPS_AGE_KEY"]+w.Env["SECRET_INIT_USER"]+w.Env["SECRET_INIT_DELIVER"] != "" {
		t.Errorf("the command got the variables %q", w.variables())
	}
	open := []string{"0", "1", "2"}
	if fd, ok := strings.CutPrefix(w.Env["DB_PASSWORD_FILE"], "/proc/self/fd/"); ok {
		open = []string{"0", "1", fd, "2"}
		s.Filesystem += fmt.Sprintf(" seals %#x", s.Seals)
	} else if len(s.Entries) != 1 || !strings.HasPrefix(s.Entries[0], ".secret-init") {
		t.Errorf("beside the file: %q", s.Entries)
	}
	if !slices.Equal(slices.Sorted(maps.Keys(w.Open)), open) {
		t.Errorf("open descriptors: %v", w.Open)
	}
	if w.Cwd != "/" || w.Status["SigBlk"] != strings.Repeat("0", 16) || w.Status["SigIgn"] != strings.Repeat("0", 16) {
		t.Errorf("cwd %q, signals blocked %s and ignored %s", w.Cwd, w.Status["SigBlk"], w.Status["SigIgn"])
	}
	path := w.Env["DB_PASSWORD_FILE"]
	if path != s.Real {
		path += " -> " + s.Real
	}
	var identity []string
	for _, name := range []string{"HOME", "USER", "LOGNAME"} {
		if value, ok := w.Env[name]; ok {
			identity = append(identity, name+"="+value)
		}
	}
	ids := strings.Fields(w.Status["Uid"])[0] + ":" + strings.Fields(w.Status["Gid"])[0]
	if fmt.Sprint(strings.Fields(w.Status["Uid"])) != fmt.Sprint(slices.Repeat(strings.Fields(w.Status["Uid"])[:1], 4)) {
		ids = w.Status["Uid"]
	}
	var caps []string
	for _, set := range []string{"CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"} {
		caps = append(caps, cmp.Or(strings.TrimLeft(w.Status[set], "0"), "0"))
	}
	return strings.Join([]string{
		normal(path), s.Filesystem + " " + s.Options, s.Mode + " " + s.Owner, s.Dir, cmp.Or(strings.Join(s.Writable, "+"), "nothing"),
		ids + " (" + w.Status["Groups"] + ")", strings.Join(caps, " "), w.Status["NoNewPrivs"] + fmt.Sprint(" ", w.Dumpable), strings.Join(identity, " "),
	}, "\t")
}

// columns are those of a row, and headings those of the table.
const (
	columns  = 9
	headings = "IMAGE\tDOCKER RUN\t--user\tDELIVER\tFILE\tFILESYSTEM\tMODE\tDIRECTORY\tCAN CHANGE\tRUNS AS\tINH PRM EFF BND AMB\tNNP DUMPABLE\tIDENTITY\tRESTARTED"
)

// render is the table, and below it the notes: what was said in which cells,
// and what a restart changed.
func render(order []string, cells map[string]cell) string {
	var text strings.Builder
	w := tabwriter.NewWriter(&text, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, headings)
	var notes []string
	where := map[string][]string{}
	note := func(name, text string) string {
		if !slices.Contains(notes, text) {
			notes = append(notes, text)
		}
		where[text] = append(where[text], strings.ReplaceAll(name, "\t", " | "))
		return fmt.Sprintf(" [%d]", slices.Index(notes, text)+1)
	}
	for _, name := range order {
		c := cells[name]
		mark := ""
		if c.said != "" {
			mark = note(name, normal(c.said))
		}
		restarted, changed := strings.CutPrefix(c.restarted, "after a restart: ")
		if changed {
			restarted = strings.TrimSpace(note(name, c.restarted+"\n"))
		}
		fmt.Fprintf(w, "%s\t%s\t%s%s\n", name, c.row, restarted, mark)
	}
	_ = w.Flush()
	for i, n := range notes {
		fmt.Fprintf(&text, "\n[%d] %s\n%s", i+1, strings.Join(where[n], "\n    "), n)
	}
	return text.String()
}

// Package privdrop turns the words of --user into numbers, and makes the
// calling thread run as those numbers: each step checked, all read back.
package privdrop

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/moby/sys/user"
)

// Identity is who a command runs as.
type Identity struct {
	UID, GID int
	// Groups are the supplementary groups, the primary group among them.
	Groups []int
	// Name is empty for a number that has no passwd entry.
	Name string
	Home string
}

// Database is where names are looked up: the image's own files (passwd(5),
// group(5)). A file that does not exist is an empty one, as in a scratch image.
type Database struct{ Passwd, Group string }

// System is the image's own database.
var System = Database{Passwd: "/etc/passwd", Group: "/etc/group"}

// Lookup resolves USER[:GROUP]; each is a name or a number. The rules are
// gosu's (github.com/tianon/gosu), where an empty USER is the current one, but
// for two: a number without a passwd entry needs its group, and a malformed
// line is no entry, never uid 0.
func (db Database) Lookup(spec string) (Identity, error) {
	name, group, _ := strings.Cut(spec, ":")
	for _, part := range []string{name, group} {
		if looksNumeric(part) && !isID(part) {
			return Identity{}, fmt.Errorf("user %q: %w", spec, errRange)
		}
	}
	passwd, err := wellFormed(db.Passwd, 4, 2, 3)
	if err != nil {
		return Identity{}, err
	}
	groups, err := wellFormed(db.Group, 3, 2)
	if err != nil {
		return Identity{}, err
	}
	now := Current()
	entry := entryOf(passwd, name, now.UID)
	if entry == nil && group == "" && name != "" && isID(name) {
		return Identity{}, fmt.Errorf("uid %s has no entry in %s, so its group is not known: write %s:GROUP", name, db.Passwd, name)
	}
	defaults := &user.ExecUser{Uid: now.UID, Gid: now.GID, Home: "/"}
	found, err := user.GetExecUser(spec, defaults, bytes.NewReader(passwd), bytes.NewReader(groups))
	if err != nil {
		return Identity{}, translate(err, spec, db)
	}
	id := Identity{UID: found.Uid, GID: found.Gid, Groups: append([]int{found.Gid}, found.Sgids...), Home: found.Home}
	slices.Sort(id.Groups)
	id.Groups = slices.Compact(id.Groups)
	if entry != nil {
		id.Name = entry.Name
	}
	if id.Home == "" {
		id.Home = "/"
	}
	return id, nil
}

func translate(err error, spec string, db Database) error {
	name, group, _ := strings.Cut(spec, ":")
	switch {
	case errors.Is(err, user.ErrNoPasswdEntries):
		return fmt.Errorf("user %q is not in %s", name, db.Passwd)
	case errors.Is(err, user.ErrNoGroupEntries):
		return fmt.Errorf("group %q is not in %s", group, db.Group)
	}
	return fmt.Errorf("user %q: %w", spec, err)
}

// LookupUser is the uid of one user, as in a secret's uid.
func (db Database) LookupUser(name string) (int, error) {
	if looksNumeric(name) {
		return number(name)
	}
	passwd, err := wellFormed(db.Passwd, 4, 2, 3)
	if err != nil {
		return 0, err
	}
	entry := entryOf(passwd, name, -1)
	if entry == nil {
		return 0, fmt.Errorf("user %q is not in %s", name, db.Passwd)
	}
	return entry.Uid, nil
}

// LookupGroup is the gid of one group, as in a secret's gid.
func (db Database) LookupGroup(name string) (int, error) {
	if looksNumeric(name) {
		return number(name)
	}
	groups, err := wellFormed(db.Group, 3, 2)
	if err != nil {
		return 0, err
	}
	list, err := user.ParseGroupFilter(bytes.NewReader(groups), func(g user.Group) bool { return g.Name == name })
	if err != nil || len(list) == 0 {
		return 0, fmt.Errorf("group %q is not in %s", name, db.Group)
	}
	return list[0].Gid, nil
}

// wellFormed reads the lines of a database that have enough fields, with
// numbers where numbers belong: the library reads any other as zero, so that
// a typing error in a passwd line would run the command as root.
func wellFormed(path string, fields int, numeric ...int) ([]byte, error) {
	content, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var kept bytes.Buffer
	for line := range strings.Lines(string(content)) {
		line = strings.TrimSpace(line)
		parts := strings.Split(line, ":")
		valid := len(parts) >= fields && parts[0] != "" && parts[0][0] != '#'
		for _, i := range numeric {
			valid = valid && isID(parts[i])
		}
		if valid {
			kept.WriteString(line)
			kept.WriteByte('\n')
		}
	}
	return kept.Bytes(), nil
}

// errRange: 32 bits with a sign, as container engines have it. The largest
// unsigned number would mean "leave as it is" to chown(2) and setresuid(2).
var errRange = errors.New("ids are numbers from 0 to 2147483647")

func isID(text string) bool {
	_, err := strconv.ParseUint(text, 10, 31)
	return err == nil
}

// looksNumeric: whoever wrote it meant a number, be it none that can be had.
func looksNumeric(text string) bool {
	digits := strings.TrimLeft(text, "+-")
	return digits != "" && strings.Trim(digits, "0123456789") == ""
}

func number(text string) (int, error) {
	if !isID(text) {
		return 0, fmt.Errorf("%q: %w", text, errRange)
	}
	return strconv.Atoi(text)
}

// entryOf is the first entry of a name, of a number, or of the current user
// when name is empty; nil for none. A number is never taken for a name.
func entryOf(passwd []byte, name string, current int) *user.User {
	uid, numeric := current, name == ""
	if isID(name) {
		uid, _ = strconv.Atoi(name)
		numeric = true
	}
	list, err := user.ParsePasswdFilter(bytes.NewReader(passwd), func(u user.User) bool {
		return numeric && u.Uid == uid || !numeric && u.Name == name
	})
	if err != nil || len(list) == 0 {
		return nil
	}
	return &list[0]
}

// Current is who the process is now.
func Current() Identity { return current() }

// current is a variable, so that a test can be somebody else.
var current = func() Identity {
	id := Identity{UID: os.Geteuid(), GID: os.Getegid()}
	id.Groups, _ = os.Getgroups()
	return id
}

// String is the numbers, as --user takes them.
func (id Identity) String() string { return fmt.Sprintf("%d:%d", id.UID, id.GID) }

// Environment is what HOME, USER and LOGNAME become. USER and LOGNAME are
// absent for a number without a name.
func (id Identity) Environment() map[string]string {
	env := map[string]string{"HOME": id.Home}
	if id.Name != "" {
		env["USER"], env["LOGNAME"] = id.Name, id.Name
	}
	return env
}

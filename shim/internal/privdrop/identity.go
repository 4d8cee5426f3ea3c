// Package privdrop turns the words of --user into numbers, and makes the
// calling thread run as those numbers: each step checked, all read back.
package privdrop

import (
	"bufio"
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
// gosu's (github.com/tianon/gosu), but for two: a number without a passwd
// entry needs its group, and a malformed line is no entry, never uid 0.
func (db Database) Lookup(spec string) (Identity, error) {
	name, group, hasGroup := strings.Cut(spec, ":")
	if name == "" || hasGroup && group == "" {
		return Identity{}, fmt.Errorf("user %q is not of the form USER[:GROUP]", spec)
	}
	passwd, err := wellFormed(db.Passwd, 7, 2, 3)
	if err != nil {
		return Identity{}, err
	}
	groups, err := wellFormed(db.Group, 4, 2)
	if err != nil {
		return Identity{}, err
	}
	if _, err := strconv.Atoi(name); err == nil && !hasGroup && !hasUser(passwd, name) {
		return Identity{}, fmt.Errorf("uid %s has no entry in %s, so its group is not known: write %s:GROUP", name, db.Passwd, name)
	}
	found, err := user.GetExecUser(spec, &user.ExecUser{Home: "/"}, bytes.NewReader(passwd), bytes.NewReader(groups))
	if err != nil {
		return Identity{}, translate(err, spec, db)
	}
	id := Identity{UID: found.Uid, GID: found.Gid, Groups: append([]int{found.Gid}, found.Sgids...), Home: found.Home}
	slices.Sort(id.Groups)
	id.Groups = slices.Compact(id.Groups)
	if entry := entryOf(passwd, found.Uid, name); entry != nil {
		id.Name = entry.Name
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
	if uid, err := strconv.Atoi(name); err == nil && uid >= 0 {
		return uid, nil
	}
	id, err := db.Lookup(name)
	return id.UID, err
}

// LookupGroup is the gid of one group, as in a secret's gid.
func (db Database) LookupGroup(name string) (int, error) {
	if gid, err := strconv.Atoi(name); err == nil && gid >= 0 {
		return gid, nil
	}
	groups, err := wellFormed(db.Group, 4, 2)
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
	for lines := bufio.NewScanner(bytes.NewReader(content)); lines.Scan(); {
		parts := strings.Split(lines.Text(), ":")
		valid := len(parts) >= fields && parts[0] != ""
		for _, i := range numeric {
			valid = valid && isID(parts[i])
		}
		if valid {
			kept.WriteString(lines.Text())
			kept.WriteByte('\n')
		}
	}
	return kept.Bytes(), nil
}

func isID(text string) bool {
	_, err := strconv.ParseUint(text, 10, 31)
	return err == nil
}

func hasUser(passwd []byte, name string) bool {
	uid, err := strconv.Atoi(name)
	return entryOf(passwd, uid, name) != nil && err == nil
}

// entryOf prefers the entry of that name: several may share one uid.
func entryOf(passwd []byte, uid int, name string) *user.User {
	list, err := user.ParsePasswdFilter(bytes.NewReader(passwd), func(u user.User) bool { return u.Uid == uid || u.Name == name })
	if err != nil || len(list) == 0 {
		return nil
	}
	if i := slices.IndexFunc(list, func(u user.User) bool { return u.Name == name }); i >= 0 {
		return &list[i]
	}
	return &list[0]
}

// Current is who the process is now.
func Current() Identity {
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

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"text/tabwriter"

	"secret-init/shim/internal/plan"
	"secret-init/shim/internal/privdrop"
	"secret-init/shim/internal/secretfs"
	"secret-init/sources"
)

// check does all that a start does but for writing and running, goes on
// after a fault, and reports all of them below a table.
//
// With --offline it looks at nothing but the options, the references, the
// config file and its templates: in CI there are no sources, and users,
// places and commands are those of another machine.
func check(args, environ []string, ui *ui) error {
	own, args, err := checkOptions(args)
	if err != nil {
		return err
	}
	if err := privdrop.Guard(); err != nil {
		return err
	}
	read := newStartup
	if own.offline {
		read = newOfflineStartup
	}
	s, err := read(args, environ, ui)
	ctx, done := s.deadline()
	defer done()
	defer s.takeBack()
	var faults plan.Faults
	collect := func(err error) {
		if several, ok := errors.AsType[plan.Faults](err); ok {
			faults = append(faults, several...)
		} else if err != nil {
			faults = append(faults, plan.Fault{Err: err})
		}
	}
	collect(err)
	for _, step := range s.checkSteps(own.offline) {
		collect(step(ctx))
	}
	if len(faults) == 0 && len(s.plan.Secrets) == 0 && len(s.plan.From) == 0 {
		s.ui.warn("no variable and no config file has a reference: nothing would be delivered")
	}
	r := s.findings(faults, own.offline)
	if own.json {
		text, err := json.MarshalIndent(r, "", "  ")
		if err != nil {
			return err
		}
		ui.print(string(text) + "\n")
	} else {
		ui.print(r.table())
	}
	if len(faults) > 0 {
		return faults
	}
	return nil
}

// checkSteps are those of a start that change nothing.
func (s *startup) checkSteps(offline bool) []func(context.Context) error {
	if offline {
		return []func(context.Context) error{s.checkCapabilities}
	}
	steps := []func(context.Context) error{s.identify, s.warnOfCredentialFiles, s.findProvided, s.choosePlace, s.fetch}
	if s.plan.Command != nil {
		steps = append([]func(context.Context) error{s.findCommand, s.findProbe}, steps...)
	}
	return steps
}

// checkFlags are the options that only check has. They are no variables: they
// belong to a call, not to an image.
type checkFlags struct{ json, offline bool }

// checkOptions takes check's own options out of the arguments before the --.
func checkOptions(args []string) (own checkFlags, rest []string, err error) {
	for i := 0; i < len(args); i++ {
		name, value, hasValue := strings.Cut(args[i], "=")
		switch {
		case name == "--":
			return own, append(rest, args[i:]...), nil
		case args[i] == "--offline":
			own.offline = true
		case name == "--format":
			if !hasValue && i+1 < len(args) {
				i++
				value = args[i]
			}
			if value != "json" && value != "table" {
				return own, nil, fail(exitUsage, "it takes: table, json", "--format: %q is neither table nor json", value)
			}
			own.json = value == "json"
		case strings.HasPrefix(name, "--") && !plan.HasOption(strings.TrimPrefix(name, "--")):
			return own, nil, plan.UnknownOption(name, "format", "offline")
		default:
			rest = append(rest, args[i])
		}
	}
	return own, rest, nil
}

func (s *startup) checkCapabilities(context.Context) error {
	if _, err := privdrop.ParseCapabilities(s.plan.KeepCap); err != nil {
		return fail(exitUsage, capabilityHint, "--keep-cap: %w", err)
	}
	return nil
}

// warnOfCredentialFiles: the variable that names such a file is dropped or
// not, whoever may read the file has the credential.
func (s *startup) warnOfCredentialFiles(context.Context) error {
	reader := s.reader()
	if s.drop == nil && s.plan.Owner != "" {
		// The entry script will become that user.
		reader = secretfs.Reader{UID: s.owner.UID, Groups: append(s.owner.Groups, s.owner.GID)}
	}
	files := s.plan.CredentialFiles()
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if _, err := os.Stat(files[name]); err == nil && secretfs.Readable(files[name], reader) {
			s.ui.warn(fmt.Sprintf("%s: the command, as uid %d, can read %s, and so has the credential", name, reader.UID, files[name]),
				"hint", "run it as another user with --user, and let root alone read the file: chmod 0400")
		}
	}
	return nil
}

// findings are what check has found. The names are those of the JSON format.
type findings struct {
	Secrets  []finding      `json:"secrets"`
	Place    *placeFinding  `json:"place,omitempty"`
	Rejected []string       `json:"rejected,omitempty"` // why earlier places were not taken
	Command  *commandFound  `json:"command,omitempty"`
	Dropped  []string       `json:"dropped"` // variables that the command does not get
	Faults   []faultFinding `json:"faults"`
	ExitCode int            `json:"exit_code"`
}

type finding struct {
	Name      string `json:"name"`
	Reference string `json:"reference"`
	Source    string `json:"source"`
	Version   string `json:"version"`
	MS        int64  `json:"ms"`
	File      string `json:"file"`
	Variable  string `json:"variable"`
	Owner     string `json:"owner"`
	Mode      string `json:"mode"`
	State     string `json:"state"`
	read      bool
}

type placeFinding struct {
	Path      string `json:"path"`
	Kind      string `json:"kind"`
	Swappable bool   `json:"swappable"`
}

type commandFound struct {
	Path   string `json:"path"`
	UID    int    `json:"uid"`
	GID    int    `json:"gid"`
	Groups []int  `json:"groups"`
}

type faultFinding struct {
	Where string `json:"where"`
	What  string `json:"what"`
	Hint  string `json:"hint"`
	Class string `json:"class"`
}

// The states of a secret.
const (
	stateOK       = "ok"
	stateProvided = "provided" // by the platform, and left alone
	stateAbsent   = "absent"   // it is optional, and does not exist
	stateFault    = "fault"
	stateNotRead  = "not read" // offline, or because of another's fault
)

func (s *startup) findings(faults plan.Faults, offline bool) *findings {
	r := &findings{Dropped: append([]string{}, s.plan.Dropped()...), Secrets: []finding{}, Faults: []faultFinding{}, ExitCode: exitCode(nil)}
	valued := map[string]bool{}
	for _, d := range s.values {
		valued[d.Name] = true
		state := stateOK
		if faulty(faults, d.Secret) {
			state = stateFault
		}
		r.Secrets = append(r.Secrets, s.finding(d.Secret, d.Path, state))
	}
	for _, secret := range s.plan.Secrets {
		if valued[secret.Name] {
			continue
		}
		state := stateAbsent
		switch path := s.provided[secret.Name]; {
		case faulty(faults, secret):
			state = stateFault
		case path != "":
			r.Secrets = append(r.Secrets, finding{Name: secret.Name, Reference: secret.Value.String(), Source: strings.Join(secret.Sources(), ","), File: path, Variable: secret.Variable, State: stateProvided})
			continue
		case offline || secret.Value == nil:
			state = stateNotRead
		}
		r.Secrets = append(r.Secrets, s.finding(secret, "", state))
	}
	for _, fault := range faults.Merged() {
		r.Faults = append(r.Faults, faultFinding{fault.Where, fault.Err.Error(), hintOf(fault.Err), className(fault.Err)})
	}
	if len(faults) > 0 {
		r.ExitCode = exitCode(faults)
		if none, ok := noPlace(faults); ok {
			r.Rejected = none.Rejected
		}
	}
	if s.place != nil {
		r.Place = &placeFinding{s.place.Path, string(s.place.Kind), s.place.Swappable()}
		r.Rejected = s.place.Rejected
	}
	if s.command != "" {
		id := privdrop.Current()
		if s.drop != nil {
			id = s.drop.To
		}
		r.Command = &commandFound{s.command, id.UID, id.GID, append([]int{}, id.Groups...)}
	}
	return r
}

func noPlace(faults plan.Faults) (*secretfs.NoPlaceError, bool) {
	for _, fault := range faults {
		if e, ok := errors.AsType[*secretfs.NoPlaceError](fault.Err); ok {
			return e, true
		}
	}
	return nil, false
}

// faulty: a fault is in this place. One may be in several.
func faulty(faults plan.Faults, secret plan.Secret) bool {
	return slices.ContainsFunc(faults, func(fault plan.Fault) bool {
		return slices.Contains(strings.Split(fault.Where, ", "), secret.Where)
	})
}

// finding is one row: what a secret comes from, and what comes of it.
func (s *startup) finding(secret plan.Secret, path, state string) finding {
	owner := s.ownerOf(secret)
	switch {
	case path != "" || secret.Expose || state == stateAbsent:
	case s.inMemfds():
		path = "memfd"
	case s.place != nil:
		path = s.place.FilePath(secret.FileName())
	default:
		path = s.plan.Dir + "/" + secret.FileName()
	}
	f := finding{
		Name: secret.Name, Reference: secret.Value.String(), Source: strings.Join(secret.Sources(), ","),
		File: path, Variable: secret.Variable, Mode: fmt.Sprintf("%04o", secret.Mode), State: state,
	}
	f.Version, f.MS, f.read = s.readings(secret)
	if s.identified {
		f.Owner = fmt.Sprintf("%d:%d", owner.UID, owner.GID)
	}
	return f
}

// readings are the versions of a secret's documents, and the milliseconds
// until the last of them was read.
func (s *startup) readings(secret plan.Secret) (versions string, ms int64, read bool) {
	var all []string
	for _, ref := range secret.Value.Refs() {
		f, ok := s.documents[ref.Document().String()]
		if !ok || f.Document == nil {
			continue
		}
		ms, read = max(ms, f.Took.Milliseconds()), true
		if f.Document.Version != "" && !slices.Contains(all, f.Document.Version) {
			all = append(all, f.Document.Version)
		}
	}
	return strings.Join(all, ","), ms, read
}

// className is the class of a fault, in a word for each exit code.
func className(err error) string {
	names := map[int]string{
		exitUsage: sources.Invalid.String(), exitDenied: sources.Denied.String(),
		exitNotFound: sources.NotFound.String(), exitUnavailable: sources.Unavailable.String(),
		exitSystem: "system", exitNoPlace: "no place", exitNotExec: "not executable", exitNoCommand: "no command",
	}
	if name, ok := names[exitCode(err)]; ok {
		return name
	}
	return "interrupted"
}

// table is the report for people.
func (r *findings) table() string {
	var text strings.Builder
	w := tabwriter.NewWriter(&text, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "SECRET\tREFERENCE\tSOURCE\tVERSION\tMS\tFILE\tVARIABLE\tOWNER\tMODE\tSTATE")
	for _, f := range r.Secrets {
		ms := ""
		if f.read {
			ms = fmt.Sprint(f.MS)
		}
		cells := []string{f.Name, f.Reference, f.Source, f.Version, ms, f.File, f.Variable, f.Owner, f.Mode, f.State}
		for i, cell := range cells {
			if cell == "" {
				// So that a column can be told by its number (awk).
				cells[i] = "-"
			}
		}
		fmt.Fprintln(w, strings.Join(cells, "\t"))
	}
	_ = w.Flush()
	if p := r.Place; p != nil {
		swap := ""
		if p.Swappable {
			swap = "; the host has swap, which could take them to a disk"
		}
		fmt.Fprintf(&text, "files go to %s (%s)%s\n", p.Path, p.Kind, swap)
	}
	for _, why := range r.Rejected {
		fmt.Fprintf(&text, "not used: %s\n", why)
	}
	if c := r.Command; c != nil {
		fmt.Fprintf(&text, "would run %s as uid %d, gid %d, groups %s\n", c.Path, c.UID, c.GID, numbers(c.Groups))
	}
	if len(r.Dropped) > 0 {
		fmt.Fprintf(&text, "the command does not get: %s\n", strings.Join(r.Dropped, ", "))
	}
	return text.String()
}

func numbers(list []int) string {
	if len(list) == 0 {
		return "none"
	}
	return strings.Trim(strings.ReplaceAll(fmt.Sprint(list), " ", ","), "[]")
}

// Command secret-init is a container's entry point. It fetches secrets,
// writes them to files in memory, and becomes the real command.
package main

import (
	"io"
	"log"
	"os"
	"runtime/debug"
	"slices"

	"secret-init/docs"
	"secret-init/shim/internal/stay"
)

const usage = `Usage:
    secret-init [OPTION...] -- COMMAND [ARG...]
    secret-init check [OPTION...] [-- COMMAND...]
    secret-init env -- COMMAND [ARG...]
    secret-init install PATH
    secret-init version | help [--all]

Fetches the secrets that the environment and the config file refer to, writes
each to a file in memory, sets NAME_FILE to its path, and becomes COMMAND.
"check" does all but the writing, and reports every fault at once (--format json
for machines, --offline for syntax alone). "env" runs COMMAND with the variables
of what is already there, for HEALTHCHECK and docker exec. "install" copies this
binary. "help --all" prints the manual.

A reference is scheme:path[?param=value&...][#key], as in
    DB_PASSWORD=vault:secret/db#password
    DB_PASSWORD=aws-sm:prod/db#password
    DB_PASSWORD=sops:/etc/app/secrets.enc.yaml#db_password
    DATABASE_URL=postgres://app:${vault:secret/db?encode=url#password}@db/app

Options, each also a variable (--stop-it is SECRET_INIT_STOP_IT) and a key of
the config file:
    --config FILE          config file (/etc/secret-init.yaml where it exists)
    --from REF[,REF...]    every top-level value of a document is a secret
    --literal NAME[,...]   leave these variables as they are
    --dir DIR              where files go (/run/secrets)
    --user USER[:GROUP]    who the command runs as
    --owner USER[:GROUP]   whose the files are (--user, or who we are)
    --keep-cap CAP[,...]   capabilities that survive the change of user
    --allow-new-privs      let the command gain privileges after that change
    --keep-env NAME[,...]  variables to keep that would be dropped; NAME* works
    --drop-env NAME[,...]  variables to drop as well; NAME* works
    --supervise            stay as PID 1: forward signals, reap orphans
    --signal-group         forward signals to the command's process group
    --stop-grace DURATION  after a TERM, KILL when this has passed
    --remove WHEN          remove the files: never, ready, or a DURATION after
                           the start of COMMAND (never)
    --ready PROBE          what --remove ready waits for: notify,
                           tcp:[HOST:]PORT, http(s)://..., file:PATH, or
                           exec:COMMAND
    --ready-timeout DURATION  then the files stay (2m)
    --refresh WHEN         fetch again while COMMAND runs: each DURATION, or
                           lease: when a lease asks for it
    --on-change WHAT       what COMMAND gets when a value changed: a signal that
                           it catches, restart or none (HUP)
    --existing WORD        a secret that the platform has already provided:
                           use, replace or error (use)
    --deliver WORD         file, or memfd: sealed memory that has no path (file)
    --max-size BYTES       of one secret (500KiB)
    --timeout DURATION     for the whole start, retries included (30s)
    --log-level LEVEL      error, warn, info or debug (warn)
    --log-format FORMAT    text or json (text)

Exit codes before COMMAND runs:
    64   usage, config, or a document that is not what it should be
    66   a secret, key or file does not exist
    69   a source could not be reached before the deadline
    70   a bug in secret-init
    71   the system refused something
    73   no safe place to write
    77   access denied
    126  COMMAND cannot be executed
    127  COMMAND was not found
    128+n  ended by signal n while fetching
`

func main() { os.Exit(run(os.Args[1:], os.Environ(), os.Stdout, os.Stderr)) }

// run is the whole program, but for exiting.
func run(args, environ []string, stdout, stderr *os.File) (code int) {
	ui := newUI(stdout, stderr, environ)
	// Libraries complain of misbehaving servers there, in words of their own.
	log.SetOutput(io.Discard)
	name, rest := "", args
	if len(args) > 0 {
		name, rest = args[0], args[1:]
	}
	var err error
	switch name {
	case "version", "--version":
		ui.print("secret-init " + version() + "\n")
	case "help", "--help", "-h":
		ui.print(helpText(rest))
	case "check":
		err = check(rest, environ, ui)
	case "env":
		err = enter(rest, environ, ui)
	case "install":
		err = install(rest)
	case stay.Supervise:
		code = stay.Main(rest, stderr)
	case stay.Child:
		err = serve(rest, ui)
	case stay.Refresh:
		err = refresh(rest, ui)
	case stay.GiveUp:
		err = giveUp(rest, ui)
	case stay.Probe:
		err = answer(rest, ui)
	default:
		err = start(args, environ, nil, ui)
	}
	if err != nil {
		ui.fail(err)
		return exitCode(err)
	}
	return code
}

func helpText(args []string) string {
	if slices.Contains(args, "--all") {
		return docs.Manual
	}
	return usage
}

// stamped is set by the linker (make build).
var stamped string

func version() string {
	if stamped != "" {
		return stamped
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "(devel)"
}

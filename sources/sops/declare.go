// Package sops reads files that SOPS encrypted: YAML, JSON, dotenv, INI and
// binary. It does what `sops decrypt` does, in memory: it finds the data key
// with whatever key is at hand, decrypts, and always verifies the MAC.
package sops

import (
	"path/filepath"
	"slices"
	"strings"

	"secret-init/sources"
)

// Backend is the scheme "sops". Its path is that of a file; a relative one
// starts at the working directory, as it does for the sops command.
var Backend = sources.Backend{
	Scheme: "sops",
	Params: []string{paramFormat},
	// The other settings of sops name files and commands, or are Vault's and AWS's own.
	Credentials:     []sources.Variable{{Name: "SOPS_AGE_KEY"}},
	CredentialFiles: []string{"SOPS_AGE_KEY_FILE", "SOPS_AGE_SSH_PRIVATE_KEY_FILE"},
	Check:           check,
	Open:            open,
}

const paramFormat = "format"

// The formats, by the names that sops gives them in --input-type.
const (
	formatYAML   = "yaml"
	formatJSON   = "json"
	formatDotenv = "dotenv"
	formatINI    = "ini"
	formatBinary = "binary"
)

var formats = []string{formatYAML, formatJSON, formatDotenv, formatINI, formatBinary}

func check(ref sources.Ref) (sources.Ref, error) {
	format, given := ref.Params[paramFormat]
	if given && !slices.Contains(formats, format) {
		return ref, sources.Errorf(sources.Invalid, "it takes: "+strings.Join(formats, ", "), "unknown format %q", format)
	}
	ref.Path = filepath.Clean(ref.Path)
	return ref, nil
}

// formatOf is the format that ref asks for, or else what sops takes a file
// of this name to be: all that it does not know is binary.
func formatOf(ref sources.Ref) string {
	if format := ref.Params[paramFormat]; format != "" {
		return format
	}
	switch filepath.Ext(ref.Path) {
	case ".yaml", ".yml":
		return formatYAML
	case ".json":
		return formatJSON
	case ".env":
		return formatDotenv
	case ".ini":
		return formatINI
	}
	return formatBinary
}

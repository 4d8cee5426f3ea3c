//go:build !no_vault

package vault

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"secret-init/sources"
)

// settingsReader reads settings of which some are a value or a file.
type settingsReader struct{ sources.Settings }

func (s settingsReader) get(name string) string { return strings.TrimSpace(s.Getenv(name)) }

// has reports whether NAME or NAME_FILE is set.
func (s settingsReader) has(name string) bool {
	return s.get(name) != "" || s.get(name+"_FILE") != ""
}

func (s settingsReader) need(method, name string) (string, error) {
	if value := s.get(name); value != "" {
		return value, nil
	}
	return "", sources.Errorf(sources.Denied, "set "+name, "cannot be read: the login with %s needs %s", method, name)
}

// needSecret is the value of NAME, or the content of the file that NAME_FILE
// names, without the blanks around it.
func (s settingsReader) needSecret(method, name string) (string, error) {
	value, file := s.get(name), s.get(name+"_FILE")
	switch {
	case value != "" && file != "":
		return "", sources.Errorf(sources.Invalid, "unset one of them", "cannot be read: both %s and %s_FILE are set", name, name)
	case value != "":
		return value, nil
	case file == "":
		return "", sources.Errorf(sources.Denied, fmt.Sprintf("set %s or %s_FILE", name, name), "cannot be read: the login with %s needs %s", method, name)
	}
	return readSecret(name+"_FILE names", file)
}

// readSecret reads a file; what begins the sentence that ends in the file's name.
func readSecret(what, file string) (string, error) {
	content, err := os.ReadFile(file)
	if err != nil {
		e := sources.FileError(err, file)
		return "", sources.Errorf(sources.Denied, e.Hint, "cannot be read: %s %s, which %s", what, file, e.What)
	}
	value := strings.TrimSpace(string(content))
	if value == "" {
		return "", sources.Errorf(sources.Denied, "write the credential into it", "cannot be read: %s %s, which is empty", what, file)
	}
	return value, nil
}

// flag is a setting that is true or false, and false when it is not set.
func flag(settings sources.Settings, name string) (bool, error) {
	text := settings.Getenv(name)
	if text == "" {
		return false, nil
	}
	value, err := strconv.ParseBool(text)
	if err != nil {
		return false, sources.Errorf(sources.Invalid, "set it to true or false", "cannot be read: %s is neither true nor false", name)
	}
	return value, nil
}

const hintNoAuth = "set VAULT_TOKEN, VAULT_TOKEN_FILE, or VAULT_ROLE_ID with VAULT_SECRET_ID; or choose another way with VAULT_AUTH_METHOD"

// method is the one that VAULT_AUTH_METHOD names, else the only possible one.
func (s settingsReader) method() (method, error) {
	var names, possible []string
	for _, m := range methods {
		names = append(names, m.name)
		if m.possible != nil && m.possible(s) {
			possible = append(possible, m.name)
		}
	}
	name := s.get("VAULT_AUTH_METHOD")
	if name == "" && len(possible) > 1 {
		// A client's certificate may be there for the connection alone.
		possible = slices.DeleteFunc(possible, func(name string) bool { return name == "cert" })
	}
	switch {
	case name != "":
	case len(possible) == 0:
		return method{}, sources.Errorf(sources.Denied, hintNoAuth, "cannot be read: there are no credentials for Vault")
	case len(possible) == 1:
		name = possible[0]
	default:
		return method{}, sources.Errorf(sources.Invalid, "set VAULT_AUTH_METHOD to the one that is meant",
			"cannot be read: there are credentials for several ways to log in to Vault: %s", strings.Join(possible, ", "))
	}
	i := slices.IndexFunc(methods, func(m method) bool { return m.name == name })
	if i < 0 {
		return method{}, sources.Errorf(sources.Invalid, "it takes: "+strings.Join(names, ", "), "cannot be read: VAULT_AUTH_METHOD=%s is not a way to log in", name)
	}
	return methods[i], nil
}

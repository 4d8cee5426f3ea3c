package sources

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
)

const canary = "CANARY-7f3a"

// encodings are the forms in which fmt's verbs and the encoders would show it.
func leaks(text string) bool {
	for _, form := range []string{canary, fmt.Sprintf("%x", canary), fmt.Sprintf("%X", canary), fmt.Sprint([]byte(canary)), "Q0FOQVJZ", "67, 65"} {
		if strings.Contains(text, form) {
			return true
		}
	}
	return false
}

func TestSecretCannotBePrinted(t *testing.T) {
	secret := NewSecret([]byte(canary))
	type exported struct{ Value Secret }
	type unexported struct{ value Secret }
	type pointed struct{ value *Secret }
	type deep struct {
		inner []unexported
		any   any
	}
	holders := map[string]any{
		"alone":      secret,
		"pointer":    &secret,
		"exported":   exported{secret},
		"unexported": unexported{secret},
		"pointed":    pointed{&secret},
		"deep":       deep{[]unexported{{secret}}, secret},
		"slice":      []Secret{secret},
		"map":        map[string]Secret{"a": secret},
		"member":     Member{Name: "name", Value: secret},
		"error":      fmt.Errorf("wrapped: %v", secret),
	}
	verbs := []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "% x", "%d", "%o", "%b", "%c", "%U", "%t", "%e", "%p", "%T", "%08v", "%-40s|"}
	for name, holder := range holders {
		for _, verb := range verbs {
			if text := fmt.Sprintf(verb, holder); leaks(text) {
				t.Errorf("%s of %s prints %q", verb, name, text)
			}
		}
		for _, encode := range []func(any) ([]byte, error){json.Marshal, xml.Marshal} {
			if text, err := encode(holder); leaks(string(text)) || err != nil && leaks(err.Error()) {
				t.Errorf("%s is encoded as %q, %v", name, text, err)
			}
		}
		var log bytes.Buffer
		for _, handler := range []slog.Handler{slog.NewTextHandler(&log, nil), slog.NewJSONHandler(&log, nil)} {
			slog.New(handler).With("with", holder).Info("message", "value", holder, slog.Group("group", "value", holder))
		}
		if log.Len() == 0 || leaks(log.String()) {
			t.Errorf("%s is logged as %q", name, log.String())
		}
	}
	for _, verb := range verbs {
		if verb == "%p" || verb == "%T" {
			continue
		}
		if text := fmt.Sprintf(verb, secret); strings.Trim(text, "|") != Redacted {
			t.Errorf("%s prints %q", verb, text)
		}
	}
	if text := secret.String() + secret.GoString(); text != Redacted+Redacted {
		t.Errorf("String and GoString: %s", text)
	}
	if text, err := json.Marshal(map[string]any{"a": secret}); err != nil || string(text) != `{"a":"[redacted]"}` {
		t.Errorf("JSON %s, %v", text, err)
	}
	if text, err := secret.MarshalText(); err != nil || string(text) != Redacted {
		t.Errorf("text %s, %v", text, err)
	}
}

func TestSecretWipe(t *testing.T) {
	value := []byte(canary)
	secret := NewSecret(value)
	copied := secret
	if string(secret.Reveal()) != canary || secret.Len() != len(canary) {
		t.Error("Reveal gives another value")
	}
	secret.Wipe()
	if !bytes.Equal(value, make([]byte, len(canary))) {
		t.Error("the bytes are still there")
	}
	if copied.Len() != 0 {
		t.Error("a copy still has them")
	}
	secret.Wipe()
	var zero Secret
	zero.Wipe()
	if zero.Reveal() != nil || zero.Len() != 0 {
		t.Error("the zero Secret has a value")
	}
}

func TestErrorParts(t *testing.T) {
	err := Errorf(NotFound, "look again", "has no version %d", 3)
	if err.Error() != "has no version 3" {
		t.Error(err)
	}
	err.Subject = "vault secret/db"
	wrapped := fmt.Errorf("DB_PASSWORD: %w", err)
	if wrapped.Error() != "DB_PASSWORD: vault secret/db has no version 3" || ClassOf(wrapped) != NotFound || HintOf(wrapped) != "look again" {
		t.Errorf("%v, class %v, hint %q", wrapped, ClassOf(wrapped), HintOf(wrapped))
	}
	other := errors.New("other")
	if ClassOf(other) != Invalid || HintOf(other) != "" {
		t.Errorf("class %v, hint %q", ClassOf(other), HintOf(other))
	}
	var names []string
	for _, class := range []Class{Invalid, NotFound, Denied, Unavailable} {
		names = append(names, class.String())
	}
	if got := strings.Join(names, ", "); got != "invalid, not found, denied, unavailable" {
		t.Error(got)
	}
}

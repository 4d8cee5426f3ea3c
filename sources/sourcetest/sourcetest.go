// Package sourcetest is the one suite that every backend passes, against its
// real server. It tests what all sources promise; what is a backend's own is
// tested beside it.
package sourcetest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"secret-init/sources"
)

// Canary stands in every stored value and in every wrong credential. No error may show it.
const Canary = "CANARY-7f3a"

// Env are settings for a source, by variable name.
type Env map[string]string

// Harness is what the suite has to know of a backend. References are spelled
// as a user would. A nil function means that the backend cannot have the case.
type Harness struct {
	Backend sources.Backend
	// Env reaches the real server with every right.
	Env Env
	// PutWhole stores a document of exactly these bytes, and returns its reference.
	PutWhole func(t *testing.T, name string, content []byte) string
	// PutFields stores a document with these keys.
	PutFields func(t *testing.T, name string, fields map[string]string) string
	// Missing is a document that does not exist.
	Missing string
	// Denied is a document, and settings that may not read it (a wrong token, holding Canary, say).
	Denied func(t *testing.T) (string, Env)
	// Malformed is a reference with a key into a document that holds Canary and cannot be parsed or decrypted.
	Malformed func(t *testing.T) string
	// At is settings for a server at this URL, and any reference.
	At func(url string) (string, Env)
	// NoEmptyWhole: the store itself refuses an empty document.
	NoEmptyWhole bool
	// MaxWhole is the store's own limit of one document, in bytes; 0 where it
	// takes all that the suite stores.
	MaxWhole int
}

// Run runs the suite.
func Run(t *testing.T, h Harness) {
	values := map[string][]byte{
		"plain":            []byte(Canary),
		"nul":              []byte("a\x00" + Canary),
		"crlf":             []byte("line one\r\n" + Canary + "\r\n"),
		"trailing newline": []byte(Canary + "\n"),
		"leading blanks":   []byte("  \t" + Canary + "  "),
		"64 KiB":           bytes.Repeat([]byte("0123456789abcdef"), 4096),
		"empty":            {},
		"json-like":        []byte(`{"a": 1.10, "b": "<&>"}`),
		"unicode":          []byte("pässwörd \u2028 🔑"),
	}
	for name, want := range values {
		slug := strings.ReplaceAll(name, " ", "-")
		if h.PutWhole != nil && !(h.NoEmptyWhole && len(want) == 0) && (h.MaxWhole == 0 || len(want) <= h.MaxWhole) {
			t.Run("whole/"+slug, func(t *testing.T) {
				ref := h.PutWhole(t, "whole-"+slug, want)
				h.wantValue(t, ref, want)
			})
		}
		if h.PutFields != nil && len(want) < 60_000 {
			t.Run("key/"+slug, func(t *testing.T) {
				ref := h.PutFields(t, "key-"+slug, map[string]string{"value": string(want), "other": "x"})
				h.wantValue(t, ref+"#value", want)
				h.wantValue(t, ref+"#/value", want)
			})
		}
	}
	t.Run("missing document", func(t *testing.T) {
		_, err := h.fetch(t, h.Env, h.Missing)
		wantError(t, err, sources.NotFound)
	})
	if h.PutFields != nil {
		t.Run("missing key", func(t *testing.T) {
			ref := h.PutFields(t, "missing-key", map[string]string{"password": Canary, "username": "app"})
			_, err := h.fetch(t, h.Env, ref+"#pasword")
			wantError(t, err, sources.NotFound)
			if hint := sources.HintOf(err); hint != "it has: password, username" {
				t.Errorf("hint = %q", hint)
			}
		})
	}
	if h.Denied != nil {
		t.Run("denied", func(t *testing.T) {
			ref, env := h.Denied(t)
			_, err := h.fetch(t, env, ref)
			wantError(t, err, sources.Denied)
		})
	}
	if h.Malformed != nil {
		t.Run("malformed", func(t *testing.T) {
			_, err := h.fetch(t, h.Env, h.Malformed(t))
			wantError(t, err, sources.Invalid)
		})
	}
	t.Run("cancelled", func(t *testing.T) {
		ref := h.Missing
		if h.PutFields != nil {
			ref = h.PutFields(t, "cancelled", map[string]string{"value": Canary})
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		fetcher, parsed := h.fetcher(t, h.Env, ref)
		err := fetcher.Fetch(ctx, parsed)[0].Err
		wantError(t, err, sources.Unavailable)
	})
	t.Run("50 at once", h.concurrent)
	if h.At != nil {
		h.runNetwork(t)
	}
}

// concurrent is meant for -race: many fetchers and one source at the same time.
func (h Harness) concurrent(t *testing.T) {
	if h.PutFields == nil && h.PutWhole == nil {
		t.Fatal("the harness stores nothing")
	}
	var refs []string
	for i := range 50 {
		if value := fmt.Sprintf("%s %d", Canary, i); h.PutFields != nil {
			refs = append(refs, h.PutFields(t, fmt.Sprintf("many-%d", i), map[string]string{"value": value})+"#value")
		} else {
			refs = append(refs, h.PutWhole(t, fmt.Sprintf("many-%d", i), []byte(value)))
		}
	}
	fetcher, parsed := h.fetcher(t, h.Env, refs...)
	for i, fetched := range fetcher.Fetch(t.Context(), parsed) {
		if fetched.Err != nil {
			t.Fatal(fetched.Err)
		}
		secret, err := fetched.Document.Select(parsed[i])
		if want := fmt.Sprintf("%s %d", Canary, i); err != nil || string(secret.Reveal()) != want {
			t.Fatalf("reference %d: got another value than was stored (error %v)", i, err)
		}
	}
}

// runNetwork tests a backend against servers that fail.
func (h Harness) runNetwork(t *testing.T) {
	t.Run("no network before the first fetch", func(t *testing.T) {
		var connections atomic.Int32
		url := listen(t, func(c net.Conn) { connections.Add(1); _ = c.Close() })
		_, env := h.At(url)
		source, err := h.Backend.Open(settings(t, env))
		if err != nil {
			t.Fatal(err)
		}
		if err := source.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(50 * time.Millisecond)
		if n := connections.Load(); n != 0 {
			t.Errorf("%d connections before the first fetch", n)
		}
	})
	servers := map[string]func(net.Conn){
		"accepts and never answers": func(c net.Conn) { _, _ = io.Copy(io.Discard, c) },
		"drips": func(c net.Conn) {
			for _, b := range []byte("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 100000\r\n\r\n{\"data\": ") {
				if _, err := c.Write([]byte{b}); err != nil {
					return
				}
				time.Sleep(30 * time.Millisecond)
			}
		},
		"hangs up": func(c net.Conn) { _ = c.Close() },
		"answers 503": func(c net.Conn) {
			_, _ = c.Read(make([]byte, 4096))
			_, _ = io.WriteString(c, "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 11\r\nConnection: close\r\n\r\n"+Canary)
			_ = c.Close()
		},
	}
	for name, handle := range servers {
		t.Run(name, func(t *testing.T) { h.wantUnavailable(t, listen(t, handle)) })
	}
	t.Run("nothing listens", func(t *testing.T) {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		url := "http://" + listener.Addr().String()
		if err := listener.Close(); err != nil {
			t.Fatal(err)
		}
		h.wantUnavailable(t, url)
	})
}

// wantUnavailable also holds the backend to the deadline: 100 ms over it at most.
func (h Harness) wantUnavailable(t *testing.T, url string) {
	t.Helper()
	const timeout = 700 * time.Millisecond
	ref, env := h.At(url)
	fetcher, parsed := h.fetcher(t, env, ref)
	ctx, cancel := context.WithTimeout(t.Context(), timeout)
	defer cancel()
	started := time.Now()
	err := fetcher.Fetch(ctx, parsed)[0].Err
	if late := time.Since(started) - timeout; late > 100*time.Millisecond {
		t.Errorf("%v after the deadline", late)
	}
	wantError(t, err, sources.Unavailable)
}

// Fetch reads one reference in the environment env and selects its value:
// for a backend's own tests.
func (h Harness) Fetch(t *testing.T, env Env, ref string) ([]byte, error) {
	t.Helper()
	secret, err := h.fetch(t, env, ref)
	return secret.Reveal(), err
}

func (h Harness) fetch(t *testing.T, env Env, ref string) (sources.Secret, error) {
	t.Helper()
	fetcher, parsed := h.fetcher(t, env, ref)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	fetched := fetcher.Fetch(ctx, parsed)[0]
	if fetched.Err != nil {
		return sources.Secret{}, fetched.Err
	}
	return fetched.Document.Select(parsed[0])
}

// fetcher parses refs and makes a Fetcher in the environment env.
func (h Harness) fetcher(t *testing.T, env Env, refs ...string) (*sources.Fetcher, []sources.Ref) {
	t.Helper()
	registry := sources.NewRegistry(h.Backend)
	var parsed []sources.Ref
	for _, s := range refs {
		ref, err := registry.Parse(s)
		if err != nil {
			t.Fatal(err)
		}
		parsed = append(parsed, ref)
	}
	fetcher := &sources.Fetcher{Registry: registry, Settings: settings(t, env), Setenv: os.Setenv}
	t.Cleanup(func() { _ = fetcher.Close(context.Background()) })
	return fetcher, parsed
}

// settings puts env into the process's own environment as well: the AWS SDK
// and sops read nothing else.
func settings(t *testing.T, env Env) sources.Settings {
	t.Helper()
	for name, value := range env {
		t.Setenv(name, value)
	}
	return sources.Settings{Getenv: os.Getenv, Warn: func(s string) { t.Log("warning:", s) }}
}

func (h Harness) wantValue(t *testing.T, ref string, want []byte) {
	t.Helper()
	secret, err := h.fetch(t, h.Env, ref)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(secret.Reveal(), want) {
		t.Errorf("%s: got %d bytes, want %d, and they differ", ref, secret.Len(), len(want))
	}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		if text := fmt.Sprintf(verb, secret); text != sources.Redacted {
			t.Errorf("%s of a secret prints %q", verb, text)
		}
	}
}

// wantError checks the class, that a hint-bearing *Error came back, and that
// no way of printing it shows the canary.
func wantError(t *testing.T, err error, class sources.Class) {
	t.Helper()
	if err == nil {
		t.Fatalf("no error, want class %v", class)
	}
	e, ok := errors.AsType[*sources.Error](err)
	if !ok {
		t.Fatalf("error %v has type %T, want *sources.Error", err, err)
	}
	if e.Class != class {
		t.Errorf("class %v, want %v: %v", e.Class, class, err)
	}
	if e.Subject == "" {
		t.Errorf("error %q names no document", err)
	}
	var log bytes.Buffer
	slog.New(slog.NewJSONHandler(&log, nil)).Error("x", "error", err)
	asJSON, _ := json.Marshal(err)
	for _, text := range []string{err.Error(), e.Hint, fmt.Sprintf("%+v %#v", err, err), log.String(), string(asJSON)} {
		if strings.Contains(text, Canary) {
			t.Errorf("the canary is in %q", text)
		}
	}
	if strings.ContainsAny(err.Error()+e.Hint, "\n\r") {
		t.Errorf("error or hint has more than one line: %q, %q", err, e.Hint)
	}
}

// listen serves connections on a loopback port until the test ends.
func listen(t *testing.T, handle func(net.Conn)) (url string) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var open []net.Conn
	t.Cleanup(func() {
		_ = listener.Close()
		mu.Lock()
		defer mu.Unlock()
		for _, c := range open {
			_ = c.Close()
		}
	})
	go func() {
		for {
			c, err := listener.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			open = append(open, c)
			mu.Unlock()
			go handle(c)
		}
	}()
	return "http://" + listener.Addr().String()
}

package supervise

import (
	"context"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

func TestParseProbe(t *testing.T) {
	for _, text := range []string{
		"notify", "tcp:5432", "tcp:db:5432", "tcp:[::1]:5432", "tcp:65535", "http://127.0.0.1/", "http://h:8080/a?b=c",
		"https://h/", "file:/run/ready", "exec:pg_isready -q", `exec:["pg_isready","-q"]`,
	} {
		probe, err := ParseProbe(text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		want := text
		if strings.HasPrefix(text, "exec:") {
			want = execText
		}
		if probe.String() != want || probe.UsesNotify() != (text == "notify") {
			t.Errorf("%s becomes %s", text, probe)
		}
		again, err := ParseProbe(probe.String())
		if err != nil || again.String() != probe.String() {
			t.Errorf("%s: PID 1 cannot read it: %v", probe, err)
		}
	}
	for text, want := range map[string]string{
		"":                    `no probe is called ""`,
		"TCP:1":               `no probe is called "TCP"`,
		"notify:x":            "notify takes nothing",
		"tcp":                 `"" is not a port`,
		"tcp:":                `"" is not a port`,
		"tcp:0":               `"0" is not a port`,
		"tcp:65536":           `"65536" is not a port`,
		"tcp:postgres":        `"postgres" is not a port`,
		"tcp::5432":           "tcp::5432 is not tcp:PORT or tcp:HOST:PORT (an IPv6 address in brackets)",
		"tcp:::1:5432":        "tcp:::1:5432 is not tcp:PORT or tcp:HOST:PORT (an IPv6 address in brackets)",
		"http":                "not a URL like http://127.0.0.1:8080/health",
		"http:8080":           "not a URL like http://127.0.0.1:8080/health",
		"http:///x":           "not a URL like http://127.0.0.1:8080/health",
		"https://u:canary@h/": "a URL with a user or a password: they would stay in the supervisor's memory",
		"file:":               "file: is not an absolute path",
		"file:ready":          "file:ready is not an absolute path",
		"exec:":               "exec: has no command",
		"exec: ":              "exec: has no command",
		"exec:[":              `exec: a command that begins with [ is a JSON list, as ["pg_isready", "-q"]`,
		"exec:[]":             `exec: a command that begins with [ is a JSON list, as ["pg_isready", "-q"]`,
		`exec:[""]`:           `exec: a command that begins with [ is a JSON list, as ["pg_isready", "-q"]`,
		`exec:["a", 1]`:       `exec: a command that begins with [ is a JSON list, as ["pg_isready", "-q"]`,
	} {
		if _, err := ParseProbe(text); err == nil || err.Error() != want {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestProbeCommand(t *testing.T) {
	for text, want := range map[string][]string{
		"exec:a b | c":           {"/bin/sh", "-c", "a b | c"},
		`exec: ["a b", "c"]`:     {"a b", "c"},
		`exec:echo "[not JSON]"`: {"/bin/sh", "-c", `echo "[not JSON]"`},
	} {
		if got, err := ProbeCommand(text); err != nil || !slices.Equal(got, want) {
			t.Errorf("%s: %q, %v", text, got, err)
		}
	}
	if _, err := ProbeCommand("tcp:1"); err == nil {
		t.Error("tcp:1 has a command")
	}
}

// once asks a probe a single time.
func once(t *testing.T, text string, around Surroundings) error {
	t.Helper()
	probe, err := ParseProbe(text)
	if err != nil {
		t.Fatal(err)
	}
	return probe.once(t.Context(), around)
}

func want(t *testing.T, what string, err error, text string) {
	t.Helper()
	if (err == nil) != (text == "") || err != nil && err.Error() != text {
		t.Errorf("%s: %v, not %q", what, err, text)
	}
}

func listen(t *testing.T, address string) (net.Listener, string) {
	t.Helper()
	listener, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	_, port, _ := net.SplitHostPort(listener.Addr().String())
	return listener, port
}

func TestTCP(t *testing.T) {
	listener, port := listen(t, "127.0.0.1:0")
	want(t, "a port", once(t, "tcp:"+port, Surroundings{}), "")
	want(t, "a host", once(t, "tcp:127.0.0.1:"+port, Surroundings{}), "")
	want(t, "another host", once(t, "tcp:127.0.0.2:"+port, Surroundings{}), "connection refused")
	_ = listener.Close()
	want(t, "nobody there", once(t, "tcp:"+port, Surroundings{}), "connection refused")
	_, port = listen(t, "[::1]:0")
	want(t, "IPv6 alone", once(t, "tcp:"+port, Surroundings{}), "")
	want(t, "IPv6 named", once(t, "tcp:[::1]:"+port, Surroundings{}), "")
}

// A server on a unix socket alone, as the databases' images run one while
// they initialise, is not on the port.
func TestTCPIsNotUnix(t *testing.T) {
	_, port := listen(t, "127.0.0.1:0")
	listener, err := net.Listen("unix", filepath.Join(t.TempDir(), ".s.PGSQL."+port))
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	want(t, "a unix socket", once(t, "tcp:127.0.0.3:"+port, Surroundings{}), "connection refused")
}

// A connection that meets itself is nobody's readiness.
func TestSelfConnect(t *testing.T) {
	listener, _ := listen(t, "127.0.0.1:0")
	address := listener.Addr()
	_ = listener.Close()
	dialer := net.Dialer{LocalAddr: address}
	want(t, "the port itself", connect(t.Context(), dialer, address.String()), "nobody listens")
}

func TestHTTP(t *testing.T) {
	code := atomic.Int64{}
	var redirect atomic.Value
	redirect.Store("")
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/health" || r.Method != http.MethodGet {
			w.WriteHeader(http.StatusTeapot)
			return
		}
		if to := redirect.Load().(string); to != "" {
			w.Header().Set("Location", to)
		}
		w.WriteHeader(int(code.Load()))
	})
	server := httptest.NewServer(handler)
	defer server.Close()
	for status, text := range map[int]string{200: "", 204: "", 299: "", 300: "it answers 300", 302: "it answers 302", 401: "it answers 401", 503: "it answers 503"} {
		code.Store(int64(status))
		want(t, http.StatusText(status), once(t, server.URL+"/health", Surroundings{}), text)
	}
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {}))
	defer other.Close()
	redirect.Store(other.URL)
	code.Store(302)
	want(t, "a redirect to a server that is up", once(t, server.URL+"/health", Surroundings{}), "it answers 302")
	// A proxy of the environment would answer for everybody.
	t.Setenv("HTTP_PROXY", other.URL)
	redirect.Store("")
	code.Store(503)
	want(t, "a proxy", once(t, server.URL+"/health", Surroundings{}), "it answers 503")
	server.Close()
	want(t, "nobody there", once(t, server.URL+"/health", Surroundings{}), "connection refused")
}

func TestHTTPSIsVerified(t *testing.T) {
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.StartTLS()
	defer server.Close()
	err := once(t, server.URL+"/", Surroundings{})
	if err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("a certificate that nobody has signed: %v", err)
	}
}

// A server that takes connections and says nothing must not hold the probe.
func TestAttemptIsBounded(t *testing.T) {
	defer func(before time.Duration) { attemptTimeout = before }(attemptTimeout)
	attemptTimeout = 50 * time.Millisecond
	_, port := listen(t, "127.0.0.1:0")
	start := time.Now()
	want(t, "a silent server", once(t, "http://127.0.0.1:"+port+"/", Surroundings{}), "no answer in time")
	if took := time.Since(start); took > 2*time.Second {
		t.Errorf("took %v", took)
	}
}

func TestFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ready")
	probe, err := ParseProbe("file:" + path)
	if err != nil {
		t.Fatal(err)
	}
	ask := func() error { return probe.once(t.Context(), Surroundings{}) }
	want(t, "missing", ask(), "no such file or directory")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	want(t, "there", ask(), "")

	// Now it is an earlier run's.
	if probe, err = ParseProbe("file:" + path); err != nil {
		t.Fatal(err)
	}
	want(t, "left behind", ask(), "it was there before the start, and has not changed since")
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	want(t, "removed", ask(), "no such file or directory")
	time.Sleep(20 * time.Millisecond) // the granularity of ctime
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	want(t, "made anew", ask(), "")
	if probe, err = ParseProbe("file:" + path); err != nil {
		t.Fatal(err)
	}
	time.Sleep(20 * time.Millisecond)
	now := time.Now()
	if err := os.Chtimes(path, now, now); err != nil {
		t.Fatal(err)
	}
	want(t, "touched", ask(), "")
}

func TestExecAndNotify(t *testing.T) {
	failed := errors.New("exit code 1")
	want(t, "exec", once(t, "exec:true", Surroundings{Exec: func(context.Context) error { return nil }}), "")
	want(t, "exec", once(t, "exec:true", Surroundings{Exec: func(context.Context) error { return failed }}), "exit code 1")
	notified := make(chan struct{})
	probe, err := ParseProbe("notify")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	want(t, "no READY=1", probe.Await(ctx, Surroundings{Notified: notified}), "no READY=1 has come")
	close(notified)
	want(t, "READY=1", probe.Await(t.Context(), Surroundings{Notified: notified}), "")
}

func TestAwait(t *testing.T) {
	defer func(a, b time.Duration) { firstProbePause, longestProbePause = a, b }(firstProbePause, longestProbePause)
	firstProbePause, longestProbePause = time.Millisecond, 4*time.Millisecond
	var times []time.Time
	around := Surroundings{Exec: func(context.Context) error {
		if times = append(times, time.Now()); len(times) == 6 {
			return nil
		}
		return errors.New("exit code 7")
	}}
	probe, err := ParseProbe("exec:x")
	if err != nil {
		t.Fatal(err)
	}
	want(t, "the sixth time", probe.Await(t.Context(), around), "")
	for i, pause := range []time.Duration{1, 2, 4, 4, 4} {
		if got := times[i+1].Sub(times[i]); got < pause*time.Millisecond {
			t.Errorf("pause %d was %v", i, got)
		}
	}

	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	attempts := 0
	around.Exec = func(ctx context.Context) error {
		if attempts++; attempts == 1 {
			return errors.New("exit code 7")
		}
		<-ctx.Done()
		return ctx.Err()
	}
	want(t, "the deadline", probe.Await(ctx, around), "exit code 7")
	if attempts < 2 {
		t.Errorf("%d attempts", attempts)
	}
}

func FuzzParseProbe(f *testing.F) {
	for _, p := range probes {
		f.Add(p.form)
	}
	f.Add("tcp:[::1]:1")
	f.Add(`exec:["a"]`)
	f.Fuzz(func(t *testing.T, text string) {
		probe, err := ParseProbe(text)
		if err != nil {
			return
		}
		again, err := ParseProbe(probe.String())
		if err != nil || again.String() != probe.String() {
			t.Errorf("%q, then %q: %v", text, probe, err)
		}
	})
}

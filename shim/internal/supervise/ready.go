package supervise

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Probe finds out whether the command's startup has finished.
type Probe struct {
	text    string
	attempt attempt
	// waits: one attempt goes on until it succeeds, instead of many short ones.
	waits bool
}

// attempt asks once. Its error is why the command is not ready.
type attempt func(ctx context.Context, around Surroundings) error

// Surroundings are what some probes need of the supervisor.
type Surroundings struct {
	// Exec runs the command of an exec probe. Its error is that the command
	// could not be run or that its exit code was not 0.
	Exec func(ctx context.Context) error
	// Notified is closed once the command has sent READY=1.
	Notified <-chan struct{}
}

// probes is the table of them. form is what a user writes; parse reads what
// follows the colon.
var probes = []struct {
	name, form string
	parse      func(name, argument string) (attempt, error)
}{
	{"notify", "notify", parseNotify},
	{"tcp", "tcp:[HOST:]PORT", parseTCP},
	{"http", "http://HOST[:PORT]/PATH", parseHTTP},
	{"https", "https://HOST[:PORT]/PATH", parseHTTP},
	{"file", "file:PATH", parseFile},
	{"exec", "exec:COMMAND", parseExec},
}

// ProbeForms lists the probes as a user writes them.
func ProbeForms() string {
	var forms []string
	for _, p := range probes {
		forms = append(forms, p.form)
	}
	return strings.Join(forms, ", ")
}

// ParseProbe reads a probe. A file probe remembers how the file was at that
// moment, so that this comes before the command starts.
func ParseProbe(text string) (*Probe, error) {
	name, argument, _ := strings.Cut(text, ":")
	for _, p := range probes {
		if p.name != name {
			continue
		}
		attempt, err := p.parse(name, argument)
		if err != nil {
			return nil, err
		}
		if name == "exec" {
			text = execText
		}
		return &Probe{text: text, attempt: attempt, waits: name == "notify"}, nil
	}
	return nil, fmt.Errorf("no probe is called %q", name)
}

// execText stands for every exec probe: nobody but the child that runs the
// command needs it, and it may have a password in it.
const execText = "exec:..."

// String is the probe as messages name it. ParseProbe makes the same probe of
// it, but for the command of an exec probe.
func (p *Probe) String() string { return p.text }

// UsesNotify reports whether the command needs a NOTIFY_SOCKET of ours.
func (p *Probe) UsesNotify() bool { return p.waits }

// Variables, so that a test need not wait.
var (
	// attemptTimeout bounds one question.
	attemptTimeout = 5 * time.Second
	// firstProbePause doubles after each attempt up to longestProbePause.
	firstProbePause   = 50 * time.Millisecond
	longestProbePause = time.Second
)

// Await repeats the probe until the command is ready. When ctx ends before,
// the error is that of the last attempt.
func (p *Probe) Await(ctx context.Context, around Surroundings) error {
	if p.waits {
		return p.attempt(ctx, around)
	}
	var last error
	for pause := firstProbePause; ; pause = min(2*pause, longestProbePause) {
		err := p.once(ctx, around)
		if err == nil {
			return nil
		}
		// That the time is over says less than why it was needed.
		if last == nil || ctx.Err() == nil {
			last = err
		}
		select {
		case <-ctx.Done():
			return last
		case <-time.After(pause):
		}
	}
}

func (p *Probe) once(ctx context.Context, around Surroundings) error {
	ctx, cancel := context.WithTimeout(ctx, attemptTimeout)
	defer cancel()
	return p.attempt(ctx, around)
}

func parseNotify(_, argument string) (attempt, error) {
	if argument != "" {
		return nil, errors.New("notify takes nothing")
	}
	return func(ctx context.Context, around Surroundings) error {
		select {
		case <-around.Notified:
			return nil
		case <-ctx.Done():
			return errors.New("no READY=1 has come")
		}
	}, nil
}

// loopback are the addresses of this host, as localhost would mean them in
// every image, /etc/hosts or not.
var loopback = []string{"127.0.0.1", "::1"}

func parseTCP(_, argument string) (attempt, error) {
	hosts, port := loopback, argument
	if strings.Contains(argument, ":") {
		host, after, err := net.SplitHostPort(argument)
		if err != nil || host == "" {
			return nil, fmt.Errorf("tcp:%s is not tcp:PORT or tcp:HOST:PORT (an IPv6 address in brackets)", argument)
		}
		hosts, port = []string{host}, after
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return nil, fmt.Errorf("%q is not a port", port)
	}
	return func(ctx context.Context, _ Surroundings) error {
		var first error
		for _, host := range hosts {
			err := connect(ctx, net.Dialer{}, net.JoinHostPort(host, port))
			if err == nil {
				return nil
			}
			if first == nil {
				first = err
			}
		}
		return first
	}, nil
}

func connect(ctx context.Context, dialer net.Dialer, address string) error {
	conn, err := dialer.DialContext(ctx, "tcp", address)
	if err != nil {
		return briefly(err)
	}
	defer conn.Close()
	// Where nobody listens on a port of the ephemeral range, a connection can
	// meet itself (simultaneous open, RFC 9293 section 3.5).
	if conn.LocalAddr().String() == conn.RemoteAddr().String() {
		return errors.New("nobody listens")
	}
	return nil
}

func parseHTTP(name, argument string) (attempt, error) {
	target := name + ":" + argument
	parsed, err := url.Parse(target)
	if err != nil || parsed.Hostname() == "" {
		return nil, fmt.Errorf("not a URL like %s://127.0.0.1:8080/health", name)
	}
	if parsed.User != nil {
		return nil, errors.New("a URL with a user or a password: they would stay in the supervisor's memory")
	}
	return func(ctx context.Context, _ Surroundings) error { return get(ctx, target) }, nil
}

// get succeeds with a 2xx answer of the very server that was named: no proxy,
// and no redirect, which might lead to one that is up already.
func get(ctx context.Context, target string) error {
	client := http.Client{
		Transport:     &http.Transport{DisableKeepAlives: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, target, nil)
	if err != nil {
		return briefly(err)
	}
	request.Header.Set("User-Agent", "secret-init")
	response, err := client.Do(request)
	if err != nil {
		return briefly(err)
	}
	_ = response.Body.Close()
	if response.StatusCode/100 != 2 {
		return fmt.Errorf("it answers %d", response.StatusCode)
	}
	return nil
}

// parseFile: a file counts when it has come or changed since the start. One
// that an earlier run has left in the container's layer would end every start
// before it has begun.
func parseFile(_, path string) (attempt, error) {
	if !filepath.IsAbs(path) {
		return nil, fmt.Errorf("file:%s is not an absolute path", path)
	}
	before := seen(path)
	return func(context.Context, Surroundings) error {
		info, err := os.Stat(path)
		switch {
		case err != nil:
			return briefly(err)
		case before != nil && os.SameFile(before, info) && changed(before) == changed(info):
			return errors.New("it was there before the start, and has not changed since")
		}
		return nil
	}, nil
}

func seen(path string) os.FileInfo {
	info, err := os.Stat(path)
	if err != nil {
		return nil
	}
	return info
}

// changed is the time of the last change of any kind, ctime in stat(2).
func changed(info os.FileInfo) syscall.Timespec { return info.Sys().(*syscall.Stat_t).Ctim }

func parseExec(_, text string) (attempt, error) {
	if _, err := ProbeCommand("exec:" + text); err != nil {
		return nil, err
	}
	return func(ctx context.Context, around Surroundings) error { return around.Exec(ctx) }, nil
}

// ProbeCommand is the command of an exec probe. As in a Dockerfile's CMD a
// JSON list is the command itself, and anything else is for /bin/sh -c.
func ProbeCommand(text string) ([]string, error) {
	text, ok := strings.CutPrefix(text, "exec:")
	text = strings.TrimSpace(text)
	if !ok || text == "" {
		return nil, errors.New("exec: has no command")
	}
	if !strings.HasPrefix(text, "[") {
		return []string{"/bin/sh", "-c", text}, nil
	}
	var command []string
	if err := json.Unmarshal([]byte(text), &command); err != nil || len(command) == 0 || command[0] == "" {
		return nil, errors.New(`exec: a command that begins with [ is a JSON list, as ["pg_isready", "-q"]`)
	}
	return command, nil
}

// briefly is the reason alone: the probe's text has the rest.
func briefly(err error) error {
	if errno, ok := errors.AsType[syscall.Errno](err); ok {
		return errno
	}
	if errors.Is(err, context.DeadlineExceeded) || os.IsTimeout(err) {
		return errors.New("no answer in time")
	}
	if parsed, ok := errors.AsType[*url.Error](err); ok {
		return parsed.Err
	}
	return err
}

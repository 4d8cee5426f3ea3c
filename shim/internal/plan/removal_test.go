package plan

import (
	"testing"
	"time"
)

func TestRemoval(t *testing.T) {
	for _, test := range []struct {
		args []string
		want Options
	}{
		{nil, Options{ReadyTimeout: 2 * time.Minute}},
		{[]string{"--remove", "never"}, Options{ReadyTimeout: 2 * time.Minute}},
		{[]string{"--remove", "90s"}, Options{Remove: Removal{After: 90 * time.Second}, ReadyTimeout: 2 * time.Minute}},
		{[]string{"--remove", "ready", "--ready", "tcp:5432", "--ready-timeout", "5m"},
			Options{Remove: Removal{OnReady: true}, Ready: "tcp:5432", ReadyTimeout: 5 * time.Minute}},
		// An image may name the probe, and leave it to the user whether to remove.
		{[]string{"--ready", "notify"}, Options{Ready: "notify", ReadyTimeout: 2 * time.Minute}},
	} {
		p := world{args: test.args}.mustPlan(t)
		if p.Remove != test.want.Remove || p.Ready != test.want.Ready || p.ReadyTimeout != test.want.ReadyTimeout {
			t.Errorf("%q: %+v", test.args, p.Options)
		}
		if never := test.want.Remove == (Removal{}); p.Remove.Never() != never || p.Stays() == never {
			t.Errorf("%q: never is %t, stays is %t", test.args, p.Remove.Never(), p.Stays())
		}
	}
	if !(Options{Supervise: true}).Stays() {
		t.Error("--supervise does not stay")
	}
}

func TestRemovalFaults(t *testing.T) {
	for _, test := range []struct {
		args []string
		want string
	}{
		{[]string{"--remove", "later"}, "--remove: \"later\" is neither never, ready nor a duration\n  it takes: never, ready, or a duration as in 30s, 2m or 1h30m"},
		{[]string{"--remove", "0s"}, "--remove: \"0s\" is neither never, ready nor a duration\n  it takes: never, ready, or a duration as in 30s, 2m or 1h30m"},
		{[]string{"--remove="}, "--remove: the value is empty\n  leave it out for the default"},
		{[]string{"--ready="}, "--ready: the value is empty\n  leave it out for the default"},
		{[]string{"--ready-timeout", "never"}, "--ready-timeout: \"never\" is not a duration\n  write it as in 30s, 2m or 1h30m"},
		{[]string{"--remove", "ready"}, "--remove: ready needs to be told when that is\n  name a probe: --ready tcp:5432, or notify, http, file, exec"},
		{[]string{"--remove", "5s", "--deliver", "memfd"}, "--remove: --deliver memfd leaves no file to remove\n  leave --remove out"},
		{[]string{"--remove", "5s", "--stop-grace", "3s", "--signal-group"}, ""},
		{[]string{"--ready", "notify", "--stop-grace", "3s"}, "--stop-grace: nobody stays to end the command\n  add --supervise"},
	} {
		_, err := world{args: test.args}.plan()
		if got := said(err); got != test.want {
			t.Errorf("%q:\ngot  %s\nwant %s", test.args, got, test.want)
		}
	}
	// Who may write the file could run a command as the user that it starts.
	p := world{config: "ready: exec:id\n"}.mustPlan(t)
	if len(p.Privileged) != 1 {
		t.Errorf("privileged: %q", p.Privileged)
	}
}

package plan

import (
	"testing"
	"time"
)

func TestRefresh(t *testing.T) {
	for _, test := range []struct {
		args     []string
		want     Refresh
		onChange string
	}{
		{nil, Refresh{}, ""},
		{[]string{"--refresh", "5m"}, Refresh{Every: 5 * time.Minute}, ""},
		{[]string{"--refresh", "lease", "--on-change", "restart"}, Refresh{Leases: true}, "restart"},
		{[]string{"--refresh=1h", "--on-change=none"}, Refresh{Every: time.Hour}, "none"},
		{[]string{"--refresh=1h", "--on-change=usr1"}, Refresh{Every: time.Hour}, "USR1"},
		{[]string{"--refresh=1h", "--on-change=SIGWINCH"}, Refresh{Every: time.Hour}, "WINCH"},
	} {
		p := world{args: test.args}.mustPlan(t)
		if p.Refresh != test.want || p.OnChange != test.onChange || p.Refresh.On() != (test.args != nil) || p.Stays() != (test.args != nil) {
			t.Errorf("%q: %+v", test.args, p.Options)
		}
	}
}

func TestRefreshFaults(t *testing.T) {
	for _, test := range []struct {
		args []string
		want string
	}{
		{[]string{"--refresh", "leases"}, "--refresh: \"leases\" is neither lease nor a duration\n  it takes: lease, or a duration as in 30s, 2m or 1h30m"},
		{[]string{"--refresh", "-1s"}, "--refresh: \"-1s\" is neither lease nor a duration\n  it takes: lease, or a duration as in 30s, 2m or 1h30m"},
		{[]string{"--refresh", "5"}, "--refresh: \"5\" is neither lease nor a duration\n  it takes: lease, or a duration as in 30s, 2m or 1h30m"},
		{[]string{"--refresh", "5m", "--on-change", "KILL"}, "--on-change: \"KILL\" is neither restart, none nor a signal that can be caught\n  it takes: restart, none, or a signal as in HUP or USR1"},
		{[]string{"--refresh", "5m", "--on-change", "HANGUP"}, "--on-change: \"HANGUP\" is neither restart, none nor a signal that can be caught\n  it takes: restart, none, or a signal as in HUP or USR1"},
		{[]string{"--refresh", "5m", "--remove", "1m"}, "--refresh: a file that --remove has removed cannot be refreshed\n  leave --remove or --refresh out"},
		{[]string{"--refresh", "5m", "--deliver", "memfd"}, "--refresh: the sealed memory of --deliver memfd cannot change\n  use --deliver file"},
		{[]string{"--on-change", "HUP"}, "--on-change: nothing is fetched again that could change\n  add --refresh 5m"},
		{[]string{"--refresh", "5m", "--signal-group", "--stop-grace", "3s"}, ""},
	} {
		_, err := world{args: test.args}.plan()
		if got := said(err); got != test.want {
			t.Errorf("%q:\ngot  %s\nwant %s", test.args, got, test.want)
		}
	}
}

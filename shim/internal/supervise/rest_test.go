package supervise

import (
	"reflect"
	"testing"
)

func TestUnchanged(t *testing.T) {
	const smaps = `00400000-00500000 r-xp 00000000 fe:00 7 /program
Rss:                 100 kB
Anonymous:             0 kB
00500000-00600000 r--p 00100000 fe:00 7 /program
Anonymous:             4 kB
00600000-00700000 rw-p 00200000 fe:00 7 /program
Anonymous:             0 kB
00700000-00800000 r--p 00000000 00:00 0
Anonymous:             0 kB
7f0000000000-7f0000001000 r--p 00000000 fe:00 9 /a library
Anonymous:             0 kB
`
	got := map[uintptr]uintptr{}
	for start, end := range unchanged(smaps) {
		got[start] = end
	}
	if want := map[uintptr]uintptr{0x400000: 0x500000, 0x7f0000000000: 0x7f0000001000}; !reflect.DeepEqual(got, want) {
		t.Errorf("%#x", got)
	}
	Rest()
}

package sources

import (
	"fmt"
	"log/slog"
)

// Redacted is what every formatting of a Secret prints.
const Redacted = "[redacted]"

// Secret holds a value that cannot be printed. It prints as Redacted with
// every verb of fmt, in JSON, as text and in a log record. The bytes lie
// behind two pointers, since fmt prints the unexported fields of a struct
// without asking their methods, and follows one pointer where a verb does not
// fit ("%!s(*T=&{...})").
type Secret struct{ box *secretBox }

type secretBox struct{ bytes *[]byte }

// NewSecret takes ownership of b: Wipe overwrites it.
func NewSecret(b []byte) Secret { return Secret{&secretBox{&b}} }

// Reveal gives the bytes themselves, not a copy: they are valid until Wipe.
func (s Secret) Reveal() []byte {
	if s.box == nil {
		return nil
	}
	return *s.box.bytes
}

// Len is the length in bytes.
func (s Secret) Len() int { return len(s.Reveal()) }

// Wipe overwrites the bytes with zeros and forgets them.
func (s Secret) Wipe() {
	if s.box == nil {
		return
	}
	clear(*s.box.bytes)
	*s.box.bytes = nil
}

func (Secret) String() string               { return Redacted }
func (Secret) GoString() string             { return Redacted }
func (Secret) Format(f fmt.State, _ rune)   { _, _ = f.Write([]byte(Redacted)) }
func (Secret) MarshalText() ([]byte, error) { return []byte(Redacted), nil }
func (Secret) MarshalJSON() ([]byte, error) { return []byte(`"` + Redacted + `"`), nil }
func (Secret) LogValue() slog.Value         { return slog.StringValue(Redacted) }

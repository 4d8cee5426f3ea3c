package sources

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"time"
)

// Class says what kind of failure an error is. It decides whether a fetch is
// tried again and which exit code the program ends with.
type Class int

// The classes. Only Unavailable is retried.
const (
	// Invalid: the reference, the settings or the document are wrong.
	Invalid Class = iota
	// NotFound: the document or the key does not exist.
	NotFound
	// Denied: the source answered, and said no.
	Denied
	// Unavailable: the source could not be reached or could not answer now.
	Unavailable
)

func (c Class) String() string {
	return [...]string{"invalid", "not found", "denied", "unavailable"}[c]
}

// Error is a failure of a source. Its text and its hint reach logs, so
// neither ever holds a value, a token or a response body; the error that a
// library returned is kept only where it cannot hold one.
type Error struct {
	Class Class
	// Subject names the document ("vault secret/db"). Fetch sets it where
	// the backend left it empty.
	Subject string
	// What completes the sentence that Subject begins: "does not exist".
	What string
	// Hint is a command, after "with:", or a setting; never a question.
	Hint string
	// RetryAfter is how long the source asked us to wait, for Unavailable.
	RetryAfter time.Duration
}

func (e *Error) Error() string {
	if e.Subject == "" {
		return e.What
	}
	return e.Subject + " " + e.What
}

// Errorf makes an Error whose text completes a sentence about the document:
// Errorf(NotFound, "", "has no version %d", 3).
func Errorf(class Class, hint, format string, args ...any) *Error {
	return &Error{Class: class, Hint: hint, What: fmt.Sprintf(format, args...)}
}

// ContextError says that a read was ended by its context: mostly because time
// ran out.
func ContextError(ctx context.Context) *Error {
	if cause := context.Cause(ctx); !errors.Is(cause, context.DeadlineExceeded) {
		return Errorf(Unavailable, "", "was not read: %v", cause)
	}
	return Errorf(Unavailable, "check the source's address; raise --timeout to try longer", "did not answer before the deadline")
}

// FileError says why a file cannot be read, whatever is in it.
func FileError(err error, path string) *Error {
	switch {
	case errors.Is(err, fs.ErrNotExist) && filepath.IsAbs(path):
		return Errorf(NotFound, "put it there, or mount it with: docker run -v FILE:"+path+":ro", "does not exist")
	case errors.Is(err, fs.ErrNotExist):
		return Errorf(NotFound, "write the path from the root: a relative one starts at the working directory", "does not exist")
	case errors.Is(err, fs.ErrPermission):
		return Errorf(Denied, "let the user that the container starts as read it: that is before --user takes effect", "cannot be read: permission denied")
	}
	if pathErr, ok := errors.AsType[*fs.PathError](err); ok {
		err = pathErr.Err
	}
	return Errorf(Invalid, lookAt(path), "cannot be read: %v", err)
}

// lookAt is the hint for a file that is not what it should be.
func lookAt(path string) string { return "look with: ls -ld " + path }

// ClassOf is the class of err; Invalid for an error without one.
func ClassOf(err error) Class {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Class
	}
	return Invalid
}

// HintOf is the hint of err, if it has one.
func HintOf(err error) string {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Hint
	}
	return ""
}

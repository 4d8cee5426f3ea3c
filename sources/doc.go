// Package sources reads secrets from the places that keep them.
//
// A reference (Ref) names a document and, perhaps, a key in it. A Backend
// declares one kind of source; a Source reads documents from it; a Registry
// holds the backends by scheme; a Fetcher reads all documents that a set of
// references needs: each once, all at once, within one deadline. What a
// source gives is a Document, from which Select takes a Secret.
//
// The package never writes a file, sets a variable or prints, and no error
// of its own holds a secret's value.
package sources

//go:build !no_sops

package sops

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"sync"
	"time"

	"github.com/getsops/sops/v3"
	"github.com/getsops/sops/v3/aes"
	"github.com/getsops/sops/v3/config"
	"github.com/getsops/sops/v3/logging"
	"github.com/getsops/sops/v3/stores/dotenv"
	"github.com/getsops/sops/v3/stores/ini"
	"github.com/getsops/sops/v3/stores/json"
	"github.com/getsops/sops/v3/stores/yaml"

	"secret-init/sources"
)

type source struct {
	getenv func(string) string
	agent  *gpgAgent
	// answers is what each key service said last.
	answers *sync.Map
}

func open(settings sources.Settings) (sources.Source, error) {
	silence()
	return source{settings.Getenv, &gpgAgent{}, &sync.Map{}}, nil
}

// errFatal is what the library's loggers panic with instead of ending the
// process, which the audit log of /etc/sops/audit.yaml would make them do.
var errFatal = errors.New("sops gave up")

// silence keeps the library off stderr: it logs comments, errors with values
// in them, and ends the process when it cannot write its audit log.
var silence = sync.OnceFunc(func() {
	for _, logger := range logging.Loggers {
		logger.SetOutput(io.Discard)
		logger.ExitFunc = func(int) { panic(errFatal) }
	}
})

// Close ends the gpg-agent that was started for us.
func (s source) Close(ctx context.Context) error { return s.agent.stop(ctx) }

// Fetch reads and decrypts one file. The library's functions are not all
// bound to a context, so they run beside it: what is late is left behind.
func (s source) Fetch(ctx context.Context, doc sources.Ref) (*sources.Document, error) {
	if ctx.Err() != nil {
		return nil, sources.ContextError(ctx)
	}
	done := make(chan sources.Result, 1)
	go func() {
		document, err := s.read(ctx, doc)
		done <- sources.Result{Document: document, Err: err}
	}()
	select {
	case result := <-done:
		return result.Document, result.Err
	case <-ctx.Done():
		return nil, sources.ContextError(ctx)
	}
}

func (s source) read(ctx context.Context, doc sources.Ref) (_ *sources.Document, err error) {
	defer func() {
		// A malformed file may send the library out of bounds, and the trace
		// of a panic would show parts of it.
		if r := recover(); r == errFatal {
			err = sources.Errorf(sources.Unavailable, "check /etc/sops/audit.yaml, and that its database can be reached", "cannot be read: sops cannot write its audit log")
		} else if r != nil {
			err = sources.Errorf(sources.Invalid, "look with: sops decrypt "+doc.Path, "cannot be read: it is malformed, and sops gave up on it")
		}
	}()
	content, err := sources.ReadFile(doc.Path)
	if err != nil {
		return nil, err
	}
	format := formatOf(doc)
	store := storeFor(format)
	tree, err := store.LoadEncryptedFile(content)
	if err != nil {
		return nil, loadError(err, doc)
	}
	key, err := s.dataKey(ctx, &tree)
	if err != nil {
		return nil, err
	}
	defer clear(key)
	if err := decrypt(&tree, key); err != nil {
		return nil, err
	}
	plain, err := store.EmitPlainFile(tree.Branches)
	if err != nil {
		return nil, sources.Errorf(sources.Invalid, formatHint, "is not of the format %s", format)
	}
	if plain == nil {
		plain = []byte{}
	}
	sum := sha256.Sum256(content)
	return &sources.Document{Bytes: plain, Parse: parser(format, tree.Branches), Version: hex.EncodeToString(sum[:6])}, nil
}

func storeFor(format string) sops.Store {
	c := config.NewStoresConfig()
	switch format {
	case formatYAML:
		return yaml.NewStore(&c.YAML)
	case formatJSON:
		return json.NewStore(&c.JSON)
	case formatDotenv:
		return dotenv.NewStore(&c.Dotenv)
	case formatINI:
		return ini.NewStore(&c.INI)
	}
	return json.NewBinaryStore(&c.JSONBinary)
}

const formatHint = "add ?format= where the file's name does not tell it: yaml, json, dotenv, ini or binary"

// loadError drops the library's text: it quotes the line that it stumbled on.
func loadError(err error, doc sources.Ref) error {
	if errors.Is(err, sops.MetadataNotFound) {
		return sources.Errorf(sources.Invalid, "encrypt it with: sops encrypt --in-place "+doc.Path, "was not encrypted by sops")
	}
	return sources.Errorf(sources.Invalid, formatHint, "is not a SOPS file of the format %s", formatOf(doc))
}

// decrypt decrypts tree in place and verifies its MAC, as decrypt.DataWithFormat
// of the library does. No error of the library is passed on: it quotes values.
func decrypt(tree *sops.Tree, key []byte) error {
	tampered := sources.Errorf(sources.Invalid, "restore it, or encrypt a copy that you trust with: sops encrypt",
		"fails its integrity check (MAC): it was changed after it was encrypted")
	cipher := aes.NewCipher()
	mac, err := tree.Decrypt(key, cipher)
	if err != nil {
		return tampered
	}
	stored, err := cipher.Decrypt(tree.Metadata.MessageAuthenticationCode, key, tree.Metadata.LastModified.Format(time.RFC3339))
	if err != nil || stored != mac {
		return tampered
	}
	return nil
}

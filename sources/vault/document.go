//go:build !no_vault

package vault

import (
	"bytes"
	"encoding/json"
	"mime"
	"net/http"
	"strconv"
	"time"

	"secret-init/sources"
)

// operation is one reading, or one request, of a document.
type operation struct {
	// asked is the path of the reference; path is that of the API.
	asked, path string
	mount       mount
	// version is what the reference asks for; empty for the newest.
	version string
	write   bool
}

// document takes the data out of a successful answer. Every value stays the
// text that Vault sent: a number that passes through a float loses digits.
func (op operation) document(a *answer) (*sources.Document, error) {
	if len(a.body) == 0 || a.status == http.StatusNoContent {
		return nil, sources.Errorf(sources.Invalid, "write a path that answers with data", "cannot be read: Vault carried the request out, and answered with no data")
	}
	kind, _, _ := mime.ParseMediaType(a.header.Get("Content-Type"))
	switch kind {
	case "application/json":
	case "text/html":
		return nil, sources.Errorf(sources.Invalid, hintAddress, "cannot be read: what answers at VAULT_ADDR is a web page, not Vault")
	default:
		// Some paths answer with a file: pki/ca/pem with a certificate.
		return &sources.Document{Bytes: a.body}, nil
	}
	defer clear(a.body)
	var envelope struct {
		LeaseID       string          `json:"lease_id"`
		LeaseDuration int64           `json:"lease_duration"`
		Renewable     bool            `json:"renewable"`
		Data          json.RawMessage `json:"data"`
		Auth          json.RawMessage `json:"auth"`
		WrapInfo      json.RawMessage `json:"wrap_info"`
	}
	if json.Unmarshal(a.body, &envelope) != nil {
		return nil, sources.Errorf(sources.Invalid, hintAddress, "cannot be read: the answer is not Vault's JSON")
	}
	document := &sources.Document{Parse: sources.ParseJSON}
	switch {
	case given(envelope.Data):
		document.Bytes = envelope.Data
	case given(envelope.Auth):
		// A token that this one makes is its child.
		document.Bytes, a.leased = envelope.Auth, true
	case given(envelope.WrapInfo):
		document.Bytes, a.leased = envelope.WrapInfo, true
	default:
		return nil, sources.Errorf(sources.Invalid, "write a path that answers with data", "cannot be read: Vault answered with no data")
	}
	if op.mount.kv2 {
		return kvDocument(document)
	}
	// A lease without an id ends nothing: KV version 1 suggests with it when to look again.
	if envelope.LeaseID != "" {
		a.leased = true
		document.Lease = sources.Lease{ID: envelope.LeaseID, Duration: time.Duration(envelope.LeaseDuration) * time.Second, Renewable: envelope.Renewable}
	}
	return document, nil
}

func given(raw json.RawMessage) bool { return len(raw) > 0 && !bytes.Equal(raw, []byte("null")) }

// kvVersion is what Vault tells of one version of a KV version 2 document.
type kvVersion struct {
	Data     json.RawMessage `json:"data"`
	Metadata struct {
		Version   int       `json:"version"`
		Deleted   timestamp `json:"deletion_time"`
		Destroyed bool      `json:"destroyed"`
	} `json:"metadata"`
}

// timestamp is Vault's RFC 3339 time, or empty.
type timestamp string

// phrase is " on 2006-01-02T15:04:05Z", or nothing: what is not a time is not shown.
func (t timestamp) phrase() string {
	at, err := time.Parse(time.RFC3339Nano, string(t))
	if err != nil {
		return ""
	}
	return " on " + at.UTC().Format(time.RFC3339)
}

func kvDocument(outer *sources.Document) (*sources.Document, error) {
	defer outer.Wipe()
	var version kvVersion
	if json.Unmarshal(outer.Bytes, &version) != nil || !given(version.Data) {
		return nil, sources.Errorf(sources.Invalid, hintAddress, "cannot be read: the answer is not that of a KV version 2 mount")
	}
	return &sources.Document{Bytes: version.Data, Parse: outer.Parse, Version: strconv.Itoa(version.Metadata.Version)}, nil
}

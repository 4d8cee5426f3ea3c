package main

import (
	"cmp"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"secret-init/shim/internal/stay"
)

// mistake is a start that fails without a server.
type mistake struct {
	name string
	code int
	// env and args have %s for the folder of the files below.
	env    []string
	args   string
	config string
	// mode is the config file's; 0644 when it is zero.
	mode fs.FileMode
}

// mistakeFiles are what the mistakes read.
var mistakeFiles = map[string]string{
	"app.json":     `{"user": "app", "password": "hunter2", "none": null, "list": ["hunter2"], "empty": [], "nested": {"a": "hunter2"}}`,
	"nothing.json": `{}`,
	"nested.json":  `{"a": {"b": "hunter2"}}`,
	"slash.json":   `{"a/b": "hunter2"}`,
	"list.json":    `["hunter2"]`,
	"broken.json":  `{"password": "hunter2`,
	"broken.yaml":  "password: \"hunter2\n",
	"bombs.yaml":   "a: &a [hunter2]\nb: &b " + strings.Repeat("[", 200) + strings.Repeat("]", 200) + "\n",
	"binary.yaml":  "password: !!binary hunter2!\n",
	"token":        "",
	"plain":        "hunter2",
	"nul":          "hunter2\x00",
	"script":       "hunter2",
	"bad.tmpl":     "{{ secret ",
	"dir/sub/x":    "",
	"aliases.yaml": "a: &a [" + strings.Repeat("x,", 999) + "x]\nb: &b [" + strings.Repeat("*a,", 999) + "*a]\nc: [" + strings.Repeat("*b,", 99) + "*b]\n",
}

const arn = "arn:aws:secretsmanager:eu-central-1:123456789012:secret:db"

var mistakes = []mistake{
	// The command line.
	{name: "no command", code: 64, args: "--"},
	{name: "no --", code: 64, args: "touch started"},
	{name: "an option that there is not", code: 64, args: "--usr app -- cmd"},
	{name: "an option that is near none", code: 64, args: "--password=x -- cmd"},
	{name: "an option of check that there is not", code: 64, args: "check --offlin"},
	{name: "a format of check that there is not", code: 64, args: "check --format xml"},
	{name: "an option without its value", code: 64, args: "--user -- cmd"},
	{name: "an option with an empty value", code: 64, args: "--user= -- cmd"},
	{name: "a variable that there is not", code: 64, env: []string{"SECRET_INIT_USR=app"}},
	{name: "a relative folder", code: 64, args: "--dir run -- cmd"},
	{name: "a word that there is not", code: 64, args: "--existing take -- cmd"},
	{name: "a duration that is none", code: 64, args: "--timeout soon -- cmd"},
	{name: "a flag that is none", code: 64, args: "--supervise=maybe -- cmd"},
	{name: "a size that is none", code: 64, args: "--max-size 2GiB -- cmd"},
	{name: "a removal that is none", code: 64, args: "--remove later -- cmd"},
	{name: "a refresh that is none", code: 64, args: "--refresh often -- cmd"},
	{name: "a change that is none", code: 64, args: "--refresh 5m --on-change KILL -- cmd"},
	{name: "a capability without a user", code: 64, args: "--keep-cap NET_RAW -- cmd"},
	{name: "a capability for root", code: 64, args: "--user 0:0 --keep-cap NET_RAW -- sh"},
	{name: "a capability that there is not", code: 64, args: "--user 1:1 --keep-cap NET_BIND -- sh"},
	{name: "signals for a group, and nobody stays", code: 64, args: "--signal-group -- cmd"},
	{name: "grace, and nobody stays", code: 64, args: "--stop-grace 3s -- cmd"},
	{name: "removal when ready, and no probe", code: 64, args: "--remove ready -- cmd"},
	{name: "removal of sealed memory", code: 64, args: "--remove 5s --deliver memfd -- cmd"},
	{name: "refresh of what is removed", code: 64, args: "--refresh 5m --remove 5s -- cmd"},
	{name: "refresh of sealed memory", code: 64, args: "--refresh 5m --deliver memfd -- cmd"},
	{name: "a change, and no refresh", code: 64, args: "--on-change HUP -- cmd"},
	{name: "a user that there is not", code: 64, args: "--user nobody-of-that-name -- sh"},
	{name: "an owner that there is not", code: 64, args: "--owner nobody-of-that-name -- sh"},
	{name: "a probe that there is not", code: 64, args: "--remove ready --ready udp:53 -- sh"},
	{name: "install without a path", code: 64, args: "install"},
	{name: "install into a folder that there is not", code: 71, args: "install %s/absent/x"},
	{name: "a word of the supervisor's", code: 64, args: stay.Supervise},
	// The command.
	{name: "a command that there is not", code: 127, args: "-- ./no-such-command"},
	{name: "a command that is not in PATH", code: 127, args: "-- no-such-command"},
	{name: "a command without its mode", code: 126, args: "-- %s/plain"},
	{name: "a command that is no program", code: 126, args: "-- %s/script"},
	// The config file.
	{name: "no config file", code: 64, args: "--config %s/absent.yaml -- cmd"},
	{name: "a config file that is not YAML", code: 64, config: "user: \"app"},
	{name: "an anchor that there is not", code: 64, config: "user: *app"},
	{name: "two documents", code: 64, config: "dir: /x\n---\ndir: /y"},
	{name: "a list for the file", code: 64, config: "- a"},
	{name: "a key that there is not", code: 64, config: "secret: {}"},
	{name: "a key twice", code: 64, config: "dir: /x\ndir: /y"},
	{name: "a config file in a config file", code: 64, config: "config: /x"},
	{name: "a mapping for an option", code: 64, config: "dir: {a: b}"},
	{name: "a secret's name with a slash", code: 64, config: "secrets: {../a: sops:x}"},
	{name: "a template's name with a slash", code: 64, config: "templates: {../a: {content: x}}"},
	{name: "a key of a secret that there is not", code: 64, config: "secrets: {a: {from: sops:x, mdoe: 1}}"},
	{name: "a list for a key of a secret", code: 64, config: "secrets: {a: {from: [sops:x]}}"},
	{name: "a secret from nothing", code: 64, config: "secrets: {a: {mode: \"0400\"}}"},
	{name: "a secret from a plain value", code: 64, config: "secrets: {a: hunter2}"},
	{name: "a secret from a mount", code: 64, config: "secrets: {a: vault:secret}"},
	{name: "a secret from a scheme that there is not", code: 64, config: "secrets: {a: gcp:projects/x}"},
	{name: "a mode that is not octal", code: 64, config: "secrets: {a: {from: sops:x, mode: 440}}"},
	{name: "a variable that cannot be", code: 64, config: "secrets: {a: {from: sops:x, env: A=B}}"},
	{name: "a target that cannot be", code: 64, config: "secrets: {a: {from: sops:x, target: b/c}}"},
	{name: "expose to what there is not", code: 64, config: "secrets: {a: {from: sops:x, expose: file}}"},
	{name: "a user of one secret that there is not", code: 64, config: "secrets: {a: {from: sops:x, uid: nobody-of-that-name}}"},
	{name: "a target in sealed memory", code: 64, config: "deliver: memfd\nsecrets: {a: {from: sops:x, target: /b}}"},
	{name: "two secrets for one file", code: 64, config: "secrets: {a: {from: sops:x, target: c}, b: {from: sops:y, target: c}}"},
	{name: "a template of nothing", code: 64, config: "templates: {a: {}}"},
	{name: "a template at a relative path", code: 64, config: "templates: {a: {source: x.tmpl}}"},
	{name: "a template that is not there", code: 66, config: "templates: {a: {source: %s/absent.tmpl}}"},
	{name: "a template that is none", code: 64, config: "templates: {a: {source: %s/bad.tmpl}}"},
	{name: "a template that fails", code: 64, config: "templates: {a: {content: '{{ index \"a\" 7 }}'}}"},
	{name: "a template with a secret that there is not", code: 66, config: "secrets: {a: file:%s/plain}\ntemplates: {b: {content: '{{ secret \"c\" }}'}}"},
	{name: "a template that computes a name", code: 66, config: "secrets: {a: file:%s/plain}\ntemplates: {b: {content: '{{ secret (secret \"a\") }}'}}"},
	{name: "privileges from a file that others can write", code: 64, config: "user: app", mode: 0o666},
	{name: "a NUL byte in a variable", code: 64, config: "secrets: {a: {from: file:%s/nul, expose: env}}"},
	// References.
	{name: "a reference in quotes", code: 64, env: []string{`A="vault:secret/db"`}},
	{name: "a reference in capitals", code: 64, env: []string{"A=Vault:secret/db"}},
	{name: "a reference with a blank", code: 64, env: []string{"A=vault: secret/db"}},
	{name: "a misspelled scheme", code: 64, env: []string{"A=vualt:secret/db"}},
	{name: "an open composite", code: 64, env: []string{"A=x${vault:secret/db"}},
	{name: "a reference without its form", code: 64, args: "--from x -- sh"},
	{name: "a scheme that there is not", code: 64, args: "--from gcp:x -- sh"},
	{name: "a reference with an empty path", code: 64, args: "--from sops:?format=json -- sh"},
	{name: "a reference with an empty key", code: 64, env: []string{"A=sops:x#"}},
	{name: "a percent sign in a path", code: 64, env: []string{"A=sops:100%"}},
	{name: "a percent sign in a parameter", code: 64, env: []string{"A=sops:x?format=%"}},
	{name: "a percent sign in a parameter's name", code: 64, env: []string{"A=sops:x?%=a"}},
	{name: "a NUL byte in a path", code: 64, env: []string{"A=sops:x%00"}},
	{name: "a parameter without a value", code: 64, env: []string{"A=sops:x?format"}},
	{name: "a parameter twice", code: 64, env: []string{"A=sops:x?format=json&format=yaml"}},
	{name: "a parameter that there is not", code: 64, env: []string{"A=sops:x?fromat=json"}},
	{name: "a parameter with another value", code: 64, env: []string{"A=sops:x?optional=yes"}},
	{name: "a prefix outside of --from", code: 64, env: []string{"A=sops:x?prefix=B_"}},
	{name: "a key in --from", code: 64, args: "--from sops:x#a -- sh"},
	{name: "both a value and a reference", code: 64, env: []string{"A=plain", "A_FILE=sops:x"}},
	{name: "a name that is no file's", code: 64, env: []string{"A/B=sops:x"}},
	{name: "a part of a credential", code: 64, env: []string{"SOPS_AGE_KEY=x${vault:secret/age}", "A=sops:x"}},
	{name: "credentials that need each other", code: 64, env: []string{"SOPS_AGE_KEY=vault:secret/age", "VAULT_TOKEN=sops:x", "A=sops:y"}},
	{name: "vault, a server in the path", code: 64, env: []string{"A=vault://host/db"}},
	{name: "vault, an empty part", code: 64, env: []string{"A=vault:secret//db"}},
	{name: "vault, a part ..", code: 64, env: []string{"A=vault:secret/../db"}},
	{name: "vault, the API's prefix", code: 64, env: []string{"A=vault:v1/secret/db"}},
	{name: "vault, a mount alone", code: 64, env: []string{"A=vault:secret/"}},
	{name: "vault, a method that there is not", code: 64, env: []string{"A=vault:secret/db?method=post"}},
	{name: "vault, a version that is none", code: 64, env: []string{"A=vault:secret/db?version=new"}},
	{name: "vault, an empty namespace", code: 64, env: []string{"A=vault:secret/db?namespace="}},
	{name: "sops, a format that there is not", code: 64, env: []string{"A=sops:x?format=toml"}},
	{name: "aws, an empty parameter", code: 64, env: []string{"A=aws-sm:db?stage="}},
	{name: "aws, a region that is none", code: 64, env: []string{"A=aws-sm:db?region=Frankfurt"}},
	{name: "aws, half an ARN", code: 64, env: []string{"A=aws-sm:arn:aws:secretsmanager"}},
	{name: "aws, an ARN without an account", code: 64, env: []string{"A=aws-sm:arn:aws:secretsmanager:eu-central-1::secret:x"}},
	{name: "aws-sm, a colon in a name", code: 64, env: []string{"A=aws-sm:db:password"}},
	{name: "aws-sm, a blank in a name", code: 64, env: []string{"A=aws-sm:my db"}},
	{name: "aws-sm, a parameter's ARN", code: 64, env: []string{"A=aws-sm:arn:aws:ssm:eu-central-1:123456789012:parameter/db"}},
	{name: "aws-sm, another service's ARN", code: 64, env: []string{"A=aws-sm:arn:aws:s3:eu-central-1:123456789012:x"}},
	{name: "aws-sm, half a suffix", code: 64, env: []string{"A=aws-sm:" + arn + ":user"}},
	{name: "aws-sm, a suffix and a key", code: 64, env: []string{"A=aws-sm:" + arn + ":user::#user"}},
	{name: "aws-sm, a suffix and a parameter", code: 64, env: []string{"A=aws-sm:" + arn + "::AWSPENDING:?stage=AWSPREVIOUS"}},
	{name: "aws-ssm, a blank in a name", code: 64, env: []string{"A=aws-ssm:/my db"}},
	{name: "aws-ssm, a secret's ARN", code: 64, env: []string{"A=aws-ssm:" + arn}},
	{name: "aws-ssm, another service's ARN", code: 64, env: []string{"A=aws-ssm:arn:aws:s3:eu-central-1:123456789012:x"}},
	{name: "aws-ssm, a version and a label", code: 64, env: []string{"A=aws-ssm:/db?version=1&label=x"}},
	{name: "aws-ssm, a version that is none", code: 64, env: []string{"A=aws-ssm:/db?version=new"}},
	{name: "aws-ssm, a version of a path", code: 64, env: []string{"A=aws-ssm:/app/?version=1"}},
	{name: "aws-ssm, a path's ARN", code: 64, env: []string{"A=aws-ssm:arn:aws:ssm:eu-central-1:123456789012:parameter/app/"}},
	{name: "aws-ssm, a path without a slash", code: 64, env: []string{"A=aws-ssm:app/"}},
	{name: "aws-ssm, a colon alone", code: 64, env: []string{"A=aws-ssm:/db:"}},
	{name: "aws-ssm, a selector and a parameter", code: 64, env: []string{"A=aws-ssm:/db:3?version=3"}},
	// Files, and what is in a document.
	{name: "a relative file", code: 64, config: "secrets: {a: file:x}"},
	{name: "a file that is not there", code: 66, config: "secrets: {a: file:%s/absent}"},
	{name: "a file that is a pipe", code: 64, config: "secrets: {a: file:/dev/null}"},
	{name: "a file below a file", code: 64, config: "secrets: {a: file:%s/plain/x}"},
	{name: "a file that is too large", code: 64, config: "secrets: {a: file:%s/large}"},
	{name: "a value that is too large", code: 64, config: "max-size: 3\nsecrets: {a: file:%s/plain}"},
	{name: "a folder for a file", code: 64, config: "secrets: {a: file:%s/dir}"},
	{name: "a pipe in a folder", code: 64, config: "from: file:%s/pipes"},
	{name: "a key that there is not in a file", code: 66, config: "secrets: {a: file:%s/app.json#pasword}"},
	{name: "a key of nothing", code: 66, config: "secrets: {a: file:%s/nothing.json#a}"},
	{name: "a key of one value", code: 64, config: "secrets: {a: file:%s/plain#a}"},
	{name: "a key below a value", code: 64, config: "secrets: {a: file:%s/app.json#/user/x}"},
	{name: "null", code: 64, config: "secrets: {a: file:%s/app.json#none}"},
	{name: "an item that there is not", code: 66, config: "secrets: {a: file:%s/app.json#/list/1}"},
	{name: "an item of an empty list", code: 66, config: "secrets: {a: file:%s/app.json#/empty/0}"},
	{name: "an item that is no number", code: 64, config: "secrets: {a: file:%s/app.json#/list/x}"},
	{name: "a key of broken JSON", code: 64, config: "secrets: {a: file:%s/broken.json#a}"},
	{name: "a key of broken YAML", code: 64, config: "secrets: {a: file:%s/broken.yaml#a}"},
	{name: "a key of deep YAML", code: 64, config: "secrets: {a: file:%s/bombs.yaml#a}"},
	{name: "a key of YAML full of aliases", code: 64, config: "secrets: {a: file:%s/aliases.yaml#a}"},
	{name: "a key of YAML with a broken binary", code: 64, config: "secrets: {a: file:%s/binary.yaml#a}"},
	{name: "a value that is not base64", code: 64, config: "secrets: {a: 'file:%s/app.json?decode=base64#user'}"},
	{name: "--from a list", code: 64, config: "from: file:%s/list.json"},
	{name: "--from broken JSON", code: 64, config: "from: file:%s/broken.json"},
	{name: "--from nested values", code: 64, config: "from: file:%s/nested.json"},
	{name: "--from a name that is no file's", code: 64, config: "from: file:%s/slash.json"},
	// What a source needs before it asks a server.
	{name: "vault, no address", code: 64, env: []string{"A=vault:secret/db"}},
	{name: "vault, no server's address", code: 64, env: []string{"A=vault:secret/db", "VAULT_ADDR=vault:8200", "VAULT_TOKEN=t"}},
	{name: "vault, no proxy's address", code: 64, env: []string{"A=vault:secret/db", "VAULT_ADDR=http://127.0.0.1:9", "VAULT_PROXY_ADDR=proxy", "VAULT_TOKEN=t"}},
	{name: "vault, a flag that is none", code: 64, env: []string{"A=vault:secret/db", "VAULT_ADDR=http://127.0.0.1:9", "VAULT_SKIP_VERIFY=maybe"}},
	{name: "vault, a client's setting that is none", code: 64, env: []string{"A=vault:secret/db", "VAULT_ADDR=http://127.0.0.1:9", "VAULT_RATE_LIMIT=maybe", "VAULT_TOKEN=t"}},
	{name: "vault, no certificate", code: 64, env: []string{"A=vault:secret/db", "VAULT_ADDR=https://127.0.0.1:9", "VAULT_CACERT=%s/absent", "VAULT_TOKEN=t"}},
	{name: "vault, half a certificate", code: 64, env: []string{"A=vault:secret/db", "VAULT_ADDR=https://127.0.0.1:9", "VAULT_CLIENT_CERT=%s/absent", "VAULT_TOKEN=t"}},
	{name: "vault, no credentials", code: 77, env: []string{"A=vault:secret/db", "VAULT_ADDR=http://127.0.0.1:9"}},
	{name: "vault, no secret id", code: 77, env: []string{"A=vault:secret/db", "VAULT_ADDR=http://127.0.0.1:9", "VAULT_ROLE_ID=r"}},
	{name: "vault, no role", code: 77, env: []string{"A=vault:secret/db", "VAULT_ADDR=http://127.0.0.1:9", "VAULT_AUTH_METHOD=kubernetes"}},
	{name: "vault, no token file", code: 77, env: []string{"A=vault:secret/db", "VAULT_ADDR=http://127.0.0.1:9", "VAULT_TOKEN_FILE=%s/absent"}},
	{name: "vault, an empty file of a wrapping token", code: 77, env: []string{"A=vault:secret/db", "VAULT_ADDR=http://127.0.0.1:9", "VAULT_WRAPPED_TOKEN_FILE=%s/token"}},
	{name: "vault, a token and a token file", code: 64, env: []string{"A=vault:secret/db", "VAULT_ADDR=http://127.0.0.1:9", "VAULT_TOKEN=t", "VAULT_TOKEN_FILE=%s/token"}},
	{name: "vault, two secret ids", code: 64, env: []string{"A=vault:secret/db", "VAULT_ADDR=http://127.0.0.1:9", "VAULT_ROLE_ID=r", "VAULT_SECRET_ID=s", "VAULT_WRAPPED_TOKEN=t", "VAULT_AUTH_METHOD=approle"}},
	{name: "vault, a token that is none", code: 64, env: []string{"A=vault:secret/db", "VAULT_ADDR=http://127.0.0.1:9", "VAULT_TOKEN=Bearer hunter2"}},
	{name: "vault, two ways to log in", code: 64, env: []string{"A=vault:secret/db", "VAULT_ADDR=http://127.0.0.1:9", "VAULT_TOKEN=t", "VAULT_ROLE_ID=r"}},
	{name: "vault, a way to log in that there is not", code: 64, env: []string{"A=vault:secret/db", "VAULT_ADDR=http://127.0.0.1:9", "VAULT_AUTH_METHOD=kerberos"}},
	{name: "vault, nothing listens", code: 69, env: []string{"A=vault:secret/db", "VAULT_ADDR=http://127.0.0.1:9", "VAULT_TOKEN=t", "SECRET_INIT_TIMEOUT=300ms"}},
	{name: "vault, an address that no server has", code: 64, env: []string{"A=vault:secret/db", "VAULT_ADDR=http://[::]:9", "VAULT_TOKEN=t"}},
	{name: "aws, no region", code: 64, env: []string{"A=aws-sm:db", "AWS_ACCESS_KEY_ID=x", "AWS_SECRET_ACCESS_KEY=y"}},
	{name: "aws, no credentials", code: 77, env: []string{"A=aws-sm:db", "AWS_REGION=eu-central-1"}},
	{name: "aws, no web identity", code: 77, env: []string{"A=aws-ssm:/db", "AWS_REGION=eu-central-1", "AWS_ROLE_ARN=arn:aws:iam::123456789012:role/app", "AWS_WEB_IDENTITY_TOKEN_FILE=%s/absent"}},
	{name: "aws, no profile", code: 64, env: []string{"A=aws-sm:db", "AWS_REGION=eu-central-1", "AWS_PROFILE=nobody"}},
	{name: "aws, settings that are none", code: 64, env: []string{"A=aws-sm:db", "AWS_REGION=eu-central-1", "AWS_CA_BUNDLE=%s/absent"}},
	{name: "aws, nothing listens", code: 69, env: []string{"A=aws-sm:db", "AWS_REGION=eu-central-1", "AWS_ACCESS_KEY_ID=x", "AWS_SECRET_ACCESS_KEY=y", "AWS_ENDPOINT_URL=http://127.0.0.1:9", "SECRET_INIT_TIMEOUT=300ms"}},
	{name: "aws, an endpoint that no server has", code: 64, env: []string{"A=aws-sm:db", "AWS_REGION=eu-central-1", "AWS_ACCESS_KEY_ID=x", "AWS_SECRET_ACCESS_KEY=y", "AWS_ENDPOINT_URL=http://[::]:9"}},
	{name: "aws, an endpoint without a scheme", code: 64, env: []string{"A=aws-sm:db", "AWS_REGION=eu-central-1", "AWS_ACCESS_KEY_ID=x", "AWS_SECRET_ACCESS_KEY=y", "AWS_ENDPOINT_URL=localhost:4566"}},
	{name: "aws, an endpoint that is no URL", code: 64, env: []string{"A=aws-sm:db", "AWS_REGION=eu-central-1", "AWS_ACCESS_KEY_ID=x", "AWS_SECRET_ACCESS_KEY=y", "AWS_ENDPOINT_URL=http://h:x"}},
	{name: "sops, a relative file that is not there", code: 66, env: []string{"A=sops:absent.yaml"}},
	{name: "sops, a file that is not there", code: 66, env: []string{"A=sops:%s/absent.yaml"}},
	{name: "sops, a file that is not encrypted", code: 64, env: []string{"A=sops:%s/binary.yaml"}},
	{name: "a credential that is not there", code: 66, env: []string{"VAULT_TOKEN=sops:%s/absent.yaml#x", "A=vault:secret/db"}},
}

// said is one error as a user sees it.
type said struct {
	name, err, hint string
	code            string
}

func (s said) String() string {
	text := "# " + s.name + "\nerror: " + s.err + "\n"
	if s.hint != "" {
		text += "hint: " + s.hint + "\n"
	}
	if s.code != "" {
		text += "exit " + s.code + "\n"
	}
	return text
}

// errorFiles are the golden files of the errors that take a server.
var errorFiles = []string{
	"testdata/errors-servers.golden",
	"../sources/vault/testdata/errors.txt",
	"../sources/awssm/testdata/errors.txt",
	"../sources/awsssm/testdata/errors.txt",
	"../sources/sops/testdata/errors.txt",
}

// TestErrorsAsASet holds testdata/errors.golden, where every error that a
// user can make stands beside its hint, to one form and one set of words. The
// first part is what the program says here; the rest is of the golden files
// that the tests with servers compare with.
func TestErrorsAsASet(t *testing.T) {
	var text strings.Builder
	var all []said
	section := func(title string, list []said) {
		fmt.Fprintf(&text, "## %s\n\n", title)
		for _, s := range list {
			fmt.Fprintf(&text, "%s\n", s)
		}
		all = append(all, list...)
	}
	section("without a server", makeMistakes(t))
	for _, path := range errorFiles {
		section(strings.TrimPrefix(path, "../"), readErrors(t, path))
	}
	const path = "testdata/errors.golden"
	if *update {
		if err := os.WriteFile(path, []byte(text.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if text.String() != string(want) {
		t.Errorf("the errors are not those of %s (go test -update, then look at git diff):\n%s", path, firstDifference(text.String(), string(want)))
	}
	for _, s := range append(all, scriptErrors(t)...) {
		checkForm(t, s)
	}
	checkEverySite(t, all)
}

func firstDifference(got, want string) string {
	a, b := strings.Split(got, "\n"), strings.Split(want, "\n")
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			return fmt.Sprintf("line %d\n got %s\nwant %s", i+1, a[i], b[i])
		}
	}
	return "one is longer"
}

// makeMistakes runs the program, which is this test binary under another name.
func makeMistakes(t *testing.T) (list []said) {
	t.Helper()
	dir := t.TempDir()
	for name, content := range mistakeFiles {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(content), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(
		os.Chmod(filepath.Join(dir, "script"), 0o755),
		os.WriteFile(filepath.Join(dir, "large"), nil, 0o600), os.Truncate(filepath.Join(dir, "large"), 16<<20+1),
		os.Mkdir(filepath.Join(dir, "pipes"), 0o755), os.Symlink("/dev/null", filepath.Join(dir, "pipes", "null")),
	); err != nil {
		t.Fatal(err)
	}
	for _, m := range mistakes {
		list = append(list, m.make(t, dir)...)
	}
	return list
}

func (m mistake) make(t *testing.T, dir string) []said {
	t.Helper()
	place, err := os.MkdirTemp("/dev/shm", "secret-init-test-")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = os.RemoveAll(place) }()
	fill := func(s string) string { return strings.ReplaceAll(s, "%s", dir) }
	args := strings.Fields(fill(cmp.Or(m.args, "-- sh -c exit")))
	if m.config != "" {
		config := filepath.Join(dir, "config.yaml")
		if err := errors.Join(os.WriteFile(config, []byte(fill(m.config)), 0o600), os.Chmod(config, cmp.Or(m.mode, 0o644))); err != nil {
			t.Fatal(err)
		}
		args = append([]string{"--config", config}, args...)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Args = append([]string{"secret-init"}, args...)
	cmd.Dir = dir
	cmd.Env = []string{"PATH=/usr/bin:/bin", "HOME=" + dir, "AWS_EC2_METADATA_DISABLED=true", "AWS_CONFIG_FILE=/dev/null", "AWS_SHARED_CREDENTIALS_FILE=/dev/null", "SECRET_INIT_DIR=" + place}
	for _, v := range m.env {
		cmd.Env = append(cmd.Env, fill(v))
	}
	var stderr strings.Builder
	cmd.Stderr = &stderr
	_ = cmd.Run()
	if code := cmd.ProcessState.ExitCode(); code != m.code {
		t.Errorf("%s: exit %d, not %d\n%s", m.name, code, m.code, stderr.String())
	}
	if left, err := os.ReadDir(place); err != nil || len(left) > 0 {
		t.Errorf("%s: left behind: %v, %v", m.name, left, err)
	}
	text := strings.NewReplacer(place, "/run/secrets", dir, "/etc/app").Replace(stderr.String())
	for _, value := range []string{"hunter2", sourcesCanary} {
		if strings.Contains(text, value) {
			t.Errorf("%s: the value is in what was said:\n%s", m.name, text)
		}
	}
	list := parseErrors(m.name + "\n" + text)
	if len(list) == 0 {
		t.Errorf("%s: no error", m.name)
	}
	for i := range list {
		list[i].code = strconv.Itoa(m.code)
	}
	return list
}

// sourcesCanary is sourcetest.Canary.
const sourcesCanary = "CANARY-7f3a"

// parseErrors reads a name and what follows it in a golden file, or what the
// program said.
func parseErrors(block string) (list []said) {
	name, rest, _ := strings.Cut(block, "\n")
	for _, line := range strings.Split(rest, "\n") {
		line = strings.TrimPrefix(line, "secret-init: ")
		if text, ok := strings.CutPrefix(line, "error: "); ok {
			list = append(list, said{name: name, err: text})
		}
		if len(list) == 0 {
			continue
		}
		last := &list[len(list)-1]
		if text, ok := strings.CutPrefix(line, "hint: "); ok {
			last.hint = text
		}
		if text, ok := strings.CutPrefix(line, "exit "); ok {
			last.code = text
		}
	}
	return list
}

func readErrors(t *testing.T, path string) (list []said) {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, block := range strings.Split("\n"+string(content), "\n# ")[1:] {
		list = append(list, parseErrors(block)...)
	}
	if len(list) == 0 {
		t.Errorf("%s has no errors", path)
	}
	return list
}

// scriptErrors are those in the sessions.
func scriptErrors(t *testing.T) (list []said) {
	t.Helper()
	paths, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(paths) == 0 {
		t.Fatal(paths, err)
	}
	for _, path := range paths {
		content, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, block := range strings.Split(string(content), "\n-- ")[1:] {
			name, rest, _ := strings.Cut(block, "\n")
			if strings.HasSuffix(name, ".err --") {
				list = append(list, parseErrors(path+" "+name+"\n"+rest)...)
			}
		}
	}
	return list
}

// openings are how a hint begins: with what to do, with a command, or with
// the list from which to choose.
var openings = regexp.MustCompile(`^(add|allow|build it in with:|check|choose|chmod|chown|close|COPY|docker run|encrypt|end it with:|give|grant|it has:|it takes:|known schemes:|known secrets:|leave|let|log in with:|look with:|make|mount|name|put|raise|rename|renew|repeat|report|restore|run|secret-init help|set|start|undelete it with:|unseal it with:|unset|use|wait|wrap one with:|write) ?`)

// otherWords are what one thing is not called. Beside each, what it is called.
var otherWords = map[string]string{
	"could not be reached": "cannot be reached", "could not": "cannot", "was not read:": "cannot be read:",
	"may not be": "access denied", "was refused": "access denied", "denies": "access denied", "was throttled": "rate limit is reached",
	"did you mean": "write", "see what": "look with:", "see the": "look with:", "lists them": "look with:", "list the": "look with:",
	"its form is": "write", "has the form": "write", "is written as": "write", "not of the form a": "write",
	"sets how long": "raise --timeout", "no AWS credentials were": "there are no credentials for AWS", "nothing to log in": "there are no credentials",
	"does not answer": "did not answer", "answers 4": "answered", "answers 5": "answered", "is one value and": "is one value, so",
	"mounted, or": "mount it with:", "please": "", "Please": "", "sorry": "",
}

// checkForm: one line, then a hint that is no question.
func checkForm(t *testing.T, s said) {
	t.Helper()
	if s.err == "" || strings.HasSuffix(s.err, ".") || strings.HasSuffix(s.hint, ".") {
		t.Errorf("%s: empty, or with a full stop: %s", s.name, s)
	}
	if s.hint == "" {
		t.Errorf("no hint:\n%s", s)
	}
	if strings.HasSuffix(s.hint, "?") || strings.Contains(s.hint, "? ") {
		t.Errorf("the hint asks:\n%s", s)
	}
	if s.hint != "" && !openings.MatchString(s.hint) {
		t.Errorf("the hint does not begin with what to do:\n%s", s)
	}
	for word, instead := range otherWords {
		if strings.Contains(s.err, word) && word != "!" || strings.Contains(s.hint, word) {
			t.Errorf("%q is called %q elsewhere:\n%s", word, instead, s)
		}
	}
	for _, missing := range []string{"there are no credentials for", "no key that it is encrypted for is at hand", ": the login with"} {
		if strings.Contains(s.err, missing) && s.code != "" && s.code != strconv.Itoa(exitDenied) {
			t.Errorf("a credential that is missing ends with %s:\n%s", s.code, s)
		}
	}
}

// site is a place in the program that makes an error.
type site struct{ where, format string }

// makers are the functions that make an error, and which of their arguments
// are the hint and the text.
var makers = map[string]struct{ hint, format int }{
	"sources.Errorf": {1, 2}, "Errorf": {1, 2}, "fail": {1, 2}, "invalid": {0, 1}, "p.fault": {1, 2}, "unavailable": {2, 1},
}

// hintless are the functions whose errors have no hint, with the reason.
var hintless = map[string]string{
	"sources.ContextError": "a signal is no fault",
	"sources.Renew":        "not shown: the document is fetched anew",
	"vault.renewToken":     "not shown: a new login makes up for it",
	"vault.Renew":          "not shown: the document is fetched anew",
	"main.replace":         "hintOf has one for what the kernel refused",
	"main.lookupKept":      "in a refresh, whose next one reads it",
	"main.exchange":        "in a refresh: the next start finds a place",
}

// unseen are texts that no golden file has, with the reason.
var unseen = map[string]string{
	// What a test of its own provokes.
	"%s is already provided":                                         "a mount: TestContainers",
	"the provided %s cannot be read: %v":                             "a provided file that root cannot read",
	"cannot be read: permission denied":                              "root reads all: TestReadFile gives that up",
	"cannot be read: this build leaves %s out":                       "another build: TestFetchWithoutABackend",
	"cannot be read: it is malformed, and sops gave up on it":        "TestLibraryGivesUp of sops",
	"cannot be read: sops cannot write its audit log":                "TestLibraryGivesUp of sops",
	"has a key and a section of the same name %q":                    "an encrypted INI file: the tests of sops",
	"cannot be read: access denied: the role cannot be assumed (%s)": "TestCredentialErrors of awssm",
	"was not read: %v":                                               "a signal: TestFetchCancelled",
	"cannot be read: the AWS credentials cannot sign a request":      "the SDK signs with whatever it has",
	// What takes a container that lacks something, or a kernel that refuses.
	"staying as a supervisor: %w":                                                "the kernel refuses",
	"reading this binary: %w":                                                    "a container without /proc",
	"command %q would lose its file capabilities under --user":                   "a program with file capabilities",
	"files cannot be given to user %s: the container lacks the capability CHOWN": "a container without CHOWN",
	"becoming user %s: %w":                                                       "the kernel refuses",
	"cannot be read: access denied: the server ended the TLS handshake, and may want a client's certificate": "a server that wants one",
	"sops: the gpg-agent that was started to decrypt still runs":                                             "a warning: the agent does not end",
	"Vault answered %d to %s": "a warning: what was obtained cannot be revoked",
	// What only a refresh meets.
	"has not been read yet": "what the first read did not bring",
	"there are files to write now, and there were none at the start": "a secret that was absent",
	// What is not shown: the document is fetched anew, or a login made.
	"cannot be renewed": "renewal", "is near its last end": "renewal",
	"has a lease that ends with its token": "renewal", "has a lease that cannot be renewed": "renewal",
	// What the libraries below were never seen to answer.
	"cannot be read: the login with %s lacks a setting":                         "each setting is asked for before",
	"cannot be read: no AWS credentials for the login with aws":                 "the client has had them before",
	"cannot be read: VAULT_AWS_STS_REGION is not a region":                      "the SDK takes most words for one",
	"cannot be read: a parameter cannot be written as JSON":                     "a parameter is text",
	"cannot be read: the session with Vault is over":                            "a bug",
	"cannot be read: this build leaves AWS out, and with it the login with aws": "another build",
}

// checkEverySite reads the program: every error that it makes has a hint, and
// stands in a golden file.
func checkEverySite(t *testing.T, all []said) {
	t.Helper()
	var texts []string
	for _, s := range all {
		texts = append(texts, s.err)
	}
	var sites []site
	for _, root := range []string{".", "../sources"} {
		err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
			if err != nil || entry.IsDir() && slices.Contains([]string{"testdata", "sourcetest"}, entry.Name()) {
				return cmp.Or(err, fs.SkipDir)
			}
			if strings.HasSuffix(path, ".go") && !strings.HasSuffix(path, "_test.go") {
				sites = append(sites, sitesOf(t, path)...)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if len(sites) < 150 {
		t.Errorf("%d places make an error, and there are more", len(sites))
	}
	used := map[string]bool{}
	for _, s := range sites {
		if !slices.ContainsFunc(texts, formatPattern(s.format).MatchString) {
			if used[s.format] = true; unseen[s.format] == "" {
				t.Errorf("%s: no golden file has %q", s.where, s.format)
			}
		}
	}
	for format := range unseen {
		if !used[format] {
			t.Errorf("unseen has %q, which is in a golden file or not in the program", format)
		}
	}
}

var verbs = regexp.MustCompile(`%(\[\d\])?[a-z]`)

// formatPattern recognises what a format makes.
func formatPattern(format string) *regexp.Regexp {
	parts := verbs.Split(strings.ReplaceAll(format, "%%", "\x00"), -1)
	for i, part := range parts {
		parts[i] = regexp.QuoteMeta(strings.ReplaceAll(part, "\x00", "%"))
	}
	return regexp.MustCompile(strings.Join(parts, ".*"))
}

// sitesOf finds the calls of makers in a file.
func sitesOf(t *testing.T, path string) (sites []site) {
	t.Helper()
	set := token.NewFileSet()
	file, err := parser.ParseFile(set, path, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	literal := func(e ast.Expr) (string, bool) {
		basic, ok := e.(*ast.BasicLit)
		if !ok || basic.Kind != token.STRING {
			return "", false
		}
		text, err := strconv.Unquote(basic.Value)
		return text, err == nil
	}
	for _, declaration := range file.Decls {
		function, ok := declaration.(*ast.FuncDecl)
		if !ok {
			continue
		}
		name := file.Name.Name + "." + function.Name.Name
		ast.Inspect(function, func(node ast.Node) bool {
			call, ok := node.(*ast.CallExpr)
			if !ok {
				return true
			}
			maker, known := makers[nameOf(call.Fun)]
			if !known || len(call.Args) <= max(maker.hint, maker.format) {
				return true
			}
			where := set.Position(call.Pos()).String()
			if hint, ok := literal(call.Args[maker.hint]); ok && hint == "" && hintless[name] == "" {
				t.Errorf("%s: %s makes an error without a hint", where, name)
			}
			if format, ok := literal(call.Args[maker.format]); ok {
				sites = append(sites, site{where, format})
			}
			return true
		})
	}
	return sites
}

// nameOf is what a call calls, as it is written.
func nameOf(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.Ident:
		return e.Name
	case *ast.SelectorExpr:
		if x, ok := e.X.(*ast.Ident); ok {
			return x.Name + "." + e.Sel.Name
		}
	}
	return ""
}

// TestHintOfTheSystem: what the kernel refuses has a hint wherever it was
// asked, and a signal has none.
func TestHintOfTheSystem(t *testing.T) {
	for _, errno := range []syscall.Errno{syscall.EPERM, syscall.EACCES, syscall.EMFILE, syscall.ENOMEM, syscall.EAGAIN, syscall.EROFS, syscall.ENOSYS} {
		for _, err := range []error{errno, fmt.Errorf("x: %w", errno), fail(exitSystem, "", "x: %w", errno)} {
			checkForm(t, said{name: errno.Error(), err: err.Error(), hint: hintOf(err)})
		}
	}
	if hint := hintOf(fail(exitUsage, "", "x: %w", syscall.EPERM)); hint != "" {
		t.Errorf("not the system's: %q", hint)
	}
	if hint := hintOf(interrupted{syscall.SIGTERM}); hint != "" {
		t.Errorf("a signal: %q", hint)
	}
}

package plan

import (
	"strings"
	"testing"

	"secret-init/sources"
)

// spell writes a template as a user would, so that parsing gives it back.
func spell(g grammar, t Template) string {
	if len(t) == 1 && t[0].Ref != nil {
		return spellRef(*t[0].Ref)
	}
	text := ""
	for i := len(t) - 1; i >= 0; i-- {
		if t[i].Ref != nil {
			text = "${" + spellRef(*t[i].Ref) + "}" + text
			continue
		}
		literal := t[i].Literal
		for {
			at := strings.LastIndex(literal, "${")
			if at < 0 {
				break
			}
			text = literal[at+2:] + text
			inner, _, _ := strings.Cut(text, "}")
			if g.isReference(inner) {
				text = "$" + "${" + text
			} else {
				text = "${" + text
			}
			literal = literal[:at]
		}
		text = literal + text
	}
	return text
}

// spellRef also encodes what a reference in a value cannot have as it is.
func spellRef(ref sources.Ref) string {
	head, key, hasKey := strings.Cut(ref.String(), "#")
	head = strings.NewReplacer("\n", "%0A", "\r", "%0D", " ", "%20", "\u200b", "%E2%80%8B", "\ufeff", "%EF%BB%BF", "\t", "%09", "\v", "%0B", "\f", "%0C", "\u0085", "%C2%85", "\u00a0", "%C2%A0", "\u2028", "%E2%80%A8", "\u2029", "%E2%80%A9").Replace(head)
	if hasKey {
		return head + "#" + key
	}
	return head
}

func TestParse(t *testing.T) {
	// want: references in <>, literal text as it is; "" for an ordinary value.
	tests := []struct{ value, want string }{
		{"vault:secret/db#p", "<vault:secret/db#p>"},
		{"vault:/secret/db", "<vault:/secret/db>"},
		{"aws-sm:db", "<aws-sm:db>"},
		{"aws-sm:arn:aws:secretsmanager:eu-west-1:123456789012:secret:db-AbCdEf", "<aws-sm:arn:aws:secretsmanager:eu-west-1:123456789012:secret:db-AbCdEf>"},
		{"sops:a.yaml#/b/0", "<sops:a.yaml#/b/0>"},
		{"sops:a b.yaml#k", "<sops:a b.yaml#k>"},
		{"a${vault:s/d#p}b${sops:f}", "a<vault:s/d#p>b<sops:f>"},
		{"${vault:s/d#p}", "<vault:s/d#p>"},
		{"${sops:f}${sops:g}", "<sops:f><sops:g>"},
		{"${sops:f%7Dx#k}", "<sops:f%7Dx#k>"},
		{"$ ${sops:f} $", "$ <sops:f> $"},
		{"$${sops:f}", "${sops:f}"},
		{"$${sops:f", "${sops:f"},
		{"$$${sops:f}", "$${sops:f}"},
		{"${sops:f}$${sops:g}", "<sops:f>${sops:g}"},
		{"$${HOME} ${sops:f}", "$${HOME} <sops:f>"},
		{"${HOME} ${X:-y} ${sops:f}", "${HOME} ${X:-y} <sops:f>"},
		{"${vault:8200} ${sops:f}", "${vault:8200} <sops:f>"},
		{"{\"p\": ${sops:f?encode=json#p}}", "{\"p\": <sops:f?encode=json#p>}"},
		{"line\n${sops:f}\n", "line\n<sops:f>\n"},
	}
	// An ordinary value is never touched.
	for _, ordinary := range []string{
		"", "x", ":", "a:b", "file:./dev.db", "file:/run/x", "file:dev.db?mode=memory", "vault:8200", "vault", "vault:", "sops:", "aws-sm:",
		"arn:aws:secretsmanager:eu-west-1:123456789012:secret:db-AbCdEf", "arn:aws:iam::123456789012:role/vault",
		"http://vault:8200/v1/sys", "https://user:pa/ss@host/", "postgres://app:x@db/app", "redis://:p@h:6379/0", "http://sops:8080/x",
		"vault:\n  address: https://x/y\n", "sops:\n  kms: x/y\n", "Vault: see https://example.com/vault", "sops: run sops -d a/b first",
		`{"vault": "a/b"}`, `{"vault":"secret/db#p"}`, `"vault": "a/b"`, "[vault:a/b]", "vault=secret/db", "-vault:a/b", "vault.internal:8200/x",
		"vaults://host/x", "vaul://u:p@h/x", "soaps://h/x", "vault-1:8200", "vlt:a/b", "svault2:a/b", "s3:bucket/key", "sosp:f", "vualt:8200",
		"${HOME}", "$${HOME}", "$$", "${", "${}", "${vault}", "${vault:8200}", "${VAULT:-a/b}", "${SOPS:+a/b}", "${Sops:?a/b}", "${{ vault:a/b }}", "{vault:a/b}", "${file:/x}", "$${file:/x}",
		"${vault:\na/b}", "12:34", "C:/vault/x", "::1", "vault::", "data:text/plain;base64,eA==", "gcp:projects/x", "mailto:a@b/c",
	} {
		tests = append(tests, struct{ value, want string }{ordinary, ""})
	}
	g := grammar{registry: testRegistry()}
	for _, test := range tests {
		parsed, err := g.parse(test.value)
		got := ""
		for _, part := range parsed {
			if part.Ref != nil {
				got += "<" + part.Ref.String() + ">"
			} else {
				got += part.Literal
			}
		}
		if err != nil || got != test.want || (parsed == nil) != (test.want == "") {
			t.Errorf("%q: got %q, %v, want %q", test.value, got, err, test.want)
		}
	}
}

func TestNearMisses(t *testing.T) {
	const (
		quotes  = "the reference has quotes around it, which are part of the value here"
		blanks  = "the reference has blanks around or in it"
		capital = "a scheme is written in lower case"
	)
	oneOff := func(scheme, meant string) string {
		return `the scheme "` + scheme + `" is one letter away from ` + meant
	}
	tests := []struct{ value, what, hint string }{
		{`"vault:secret/db#p"`, `"vault:secret/db#p": ` + quotes, "write vault:secret/db#p"},
		{`'sops:f'`, `'sops:f': ` + quotes, "write sops:f"},
		{"`sops:f`", "`sops:f`: " + quotes, "write sops:f"},
		{"\u201csops:f\u201d", "\u201csops:f\u201d: " + quotes, "write sops:f"},
		{`"sops:f`, `"sops:f: ` + quotes, "write sops:f"},
		{` "sops:f" `, ` "sops:f" : ` + quotes, "write sops:f"},
		{`"VAULT:a/b"`, `"VAULT:a/b": ` + quotes, "write vault:a/b"},
		{" vault:secret/db", `" vault:secret/db": ` + blanks, "write vault:secret/db"},
		{"vault:secret/db\n", `"vault:secret/db\n": ` + blanks, "write vault:secret/db"},
		{"vault:secret/db\r", `"vault:secret/db\r": ` + blanks, "write vault:secret/db"},
		{"\u00a0sops:f", `"\u00a0sops:f": ` + blanks, "write sops:f"},
		{"\ufeffsops:f", `"\ufeffsops:f": ` + blanks, "write sops:f"},
		{"vault: secret/db", `"vault: secret/db": ` + blanks, "write vault:secret/db"},
		{"vault :secret/db", `"vault :secret/db": ` + blanks, "write vault:secret/db"},
		{"Vault:secret/db", "Vault:secret/db: " + capital, "write vault:secret/db"},
		{"AWS-SM:db", "AWS-SM:db: " + capital, "write aws-sm:db"},
		{"vualt:secret/db#p", "vualt:secret/db#p: " + oneOff("vualt", "vault"), "write vault:secret/db#p"},
		{"valt:secret/db", "valt:secret/db: " + oneOff("valt", "vault"), "write vault:secret/db"},
		{"vaullt:secret/db", "vaullt:secret/db: " + oneOff("vaullt", "vault"), "write vault:secret/db"},
		{"fault:secret/db", "fault:secret/db: " + oneOff("fault", "vault"), "write vault:secret/db"},
		{"Vualt:secret/db", "Vualt:secret/db: " + oneOff("Vualt", "vault"), "write vault:secret/db"},
		{"aws_sm:prod/db", "aws_sm:prod/db: " + oneOff("aws_sm", "aws-sm"), "write aws-sm:prod/db"},
		{"awssm:prod/db", "awssm:prod/db: " + oneOff("awssm", "aws-sm"), "write aws-sm:prod/db"},
		{"sosp:/etc/f", "sosp:/etc/f: " + oneOff("sosp", "sops"), "write sops:/etc/f"},
		{canary + "${Vault:a/b}" + canary, "${Vault:a/b}: " + capital, "write ${vault:a/b}"},
		{canary + "${ vault:a/b }" + canary, `"${ vault:a/b }": ` + blanks, "write ${vault:a/b}"},
		{canary + "${vualt:a/b}" + canary, "${vualt:a/b}: " + oneOff("vualt", "vault"), "write ${vault:a/b}"},
		{canary + "${sops:f}${'sops:f'}", "${'sops:f'}: " + quotes, "write ${sops:f}"},
		{canary + "${vault:a/b" + canary, "a ${ before a reference is not closed", "close it with }, or write $${ for a literal ${"},
		{canary + "${vault:a/b?x=1}", `vault:a/b?x=1: unknown parameter "x"`, "it takes: version, optional, decode, encode"},
		{canary + "${vault:a/b#}", "vault:a/b#: nothing follows the #", "name a key, or leave the # out to get the whole document"},
		{"Vault://app:" + canary + "@host/x", "Vault://...@host/x: " + capital, "write vault://...@host/x"},
		{"vault://app:" + canary + "@host/x?y", `vault://...@host/x?y: parameter "y" is not of the form name=value`, "write scheme:path[?param=value&...][#key], as in sops:/etc/app/secrets.yaml#password"},
	}
	g := grammar{registry: testRegistry()}
	for _, test := range tests {
		_, err := g.parse(test.value)
		if err == nil || err.Error() != test.what || sources.HintOf(err) != test.hint {
			t.Errorf("%q:\ngot  %v | %s\nwant %s | %s", test.value, err, sources.HintOf(err), test.what, test.hint)
		}
	}
}

func TestTemplateShowsReferencesAlone(t *testing.T) {
	g := grammar{registry: testRegistry()}
	parsed, err := g.parse(canary + "${sops:f#a}" + canary + "${sops:f#b}")
	if err != nil || parsed.String() != "sops:f#a, sops:f#b" {
		t.Errorf("%v, %v", parsed, err)
	}
}

// FuzzTemplate: nothing panics, and what was parsed and is written again
// means the same.
func FuzzTemplate(f *testing.F) {
	for _, seed := range []string{
		"a${vault:s/d?encode=url#p}b$${sops:f}${sops:g", "$$${sops:f}${HOME}", "${${sops:f}}", "sops:%20f", "${vault:a%0A/b}", "x$${sops:${sops:f}",
		"\"vault:a/b\"", "vualt:a/b", "${ Sops:f }", "$${file:/x}${sops:f}",
	} {
		f.Add(seed, false)
		f.Add(seed, true)
	}
	f.Fuzz(func(t *testing.T, value string, inConfig bool) {
		g := grammar{testRegistry(), inConfig}
		first, err := g.parse(value)
		if err != nil {
			if strings.ContainsAny(err.Error(), "\x00") && !strings.Contains(value, "\x00") {
				t.Fatal("the error has what the value has not")
			}
			return
		}
		if first == nil {
			return
		}
		again := spell(g, first)
		second, err := g.parse(again)
		if err != nil || spell(g, second) != again || len(second) != len(first) {
			t.Fatalf("%q is %#v, written %q, which is %#v, %v", value, first, again, second, err)
		}
		for i := range first {
			same := first[i].Literal == second[i].Literal && (first[i].Ref == nil) == (second[i].Ref == nil)
			if !same || first[i].Ref != nil && first[i].Ref.String() != second[i].Ref.String() {
				t.Fatalf("part %d of %q was %v, is %v", i, value, first[i], second[i])
			}
		}
	})
}

package awsssm_test

import (
	"reflect"
	"strings"
	"testing"

	"secret-init/sources"
	"secret-init/sources/awsssm"
)

const arn = "arn:aws:ssm:eu-central-1:123456789012:parameter/app/db"

func parse(s string) (sources.Ref, error) {
	return sources.NewRegistry(awsssm.Backend).Parse(s)
}

func TestCanonicalForm(t *testing.T) {
	for ref, want := range map[string]string{
		"aws-ssm:/app/db":                             "aws-ssm:/app/db",
		"aws-ssm:db#user":                             "aws-ssm:db#user",
		"aws-ssm:/app/db:3":                           "aws-ssm:/app/db?version=3",
		"aws-ssm:/app/db:live#user":                   "aws-ssm:/app/db?label=live#user",
		"aws-ssm:/app/db?version=3":                   "aws-ssm:/app/db?version=3",
		"aws-ssm:/app/db:3?optional=true":             "aws-ssm:/app/db?optional=true&version=3",
		"aws-ssm:/app/prod/":                          "aws-ssm:/app/prod/",
		"aws-ssm:/app/prod/?region=cn-north-1":        "aws-ssm:/app/prod/?region=cn-north-1",
		"aws-ssm:" + arn:                              "aws-ssm:" + arn,
		"aws-ssm:" + arn + "?region=eu-central-1":     "aws-ssm:" + arn,
		"aws-ssm:" + arn + ":12":                      "aws-ssm:" + arn + "?version=12",
		"aws-ssm:" + arn + ":live":                    "aws-ssm:" + arn + "?label=live",
		"aws-ssm:/aws/reference/secretsmanager/a@b+c": "aws-ssm:/aws/reference/secretsmanager/a@b+c",
	} {
		got, err := parse(ref)
		if err != nil {
			t.Errorf("%s: %v", ref, err)
		} else if got.String() != want {
			t.Errorf("%s:\n got %s\nwant %s", ref, got, want)
		}
	}
}

func TestRefused(t *testing.T) {
	for ref, want := range map[string]string{
		"aws-ssm:/app db":                                                "is not the name of a parameter",
		"aws-ssm:/app/db:":                                               "has a colon, but neither a version nor a label after it",
		"aws-ssm:/app/db:3:live":                                         "has a colon, but neither a version nor a label after it",
		"aws-ssm:/app/db:3?version=3":                                    "has both :3 and the parameter version",
		"aws-ssm:/app/db:3?label=live":                                   "has both :3 and the parameter label",
		"aws-ssm:/app/db?version=3&label=x":                              "has both a version and a label",
		"aws-ssm:/app/db?version=live":                                   `has a version "live" that is not a number`,
		"aws-ssm:/app/db?label=":                                         `parameter "label" is empty`,
		"aws-ssm:/app/?label=live":                                       "is a whole path, of which no version or label can be selected",
		"aws-ssm:/app/:3":                                                "is a whole path, of which no version or label can be selected",
		"aws-ssm:app/":                                                   "is a path that does not begin with a slash",
		"aws-ssm:" + arn + "/":                                           "is a path given as an ARN, by which AWS cannot read it",
		"aws-ssm:/app/db?stage=AWSCURRENT":                               `unknown parameter "stage"`,
		"aws-ssm:/app/db?region=%2Fevil":                                 `has "/evil" where the region belongs`,
		"aws-ssm:arn:aws:ssm:eu-central-1:1":                             "is not a whole ARN",
		"aws-ssm:arn:aws:ssm:eu-central-1:1:parameter/":                  "is not the ARN of a parameter",
		"aws-ssm:arn:aws:secretsmanager:eu-central-1:1:secret:db-AbCdEf": "is the ARN of a secret, not of a parameter",
	} {
		_, err := parse(ref)
		if err == nil {
			t.Errorf("%s: no error", ref)
			continue
		}
		if !strings.HasSuffix(err.Error(), want) || strings.Contains(err.Error(), "\n") || sources.ClassOf(err) != sources.Invalid {
			t.Errorf("%s: %v", ref, err)
		}
	}
}

// FuzzCheck: the canonical form is a form that stays.
func FuzzCheck(f *testing.F) {
	for _, s := range []string{arn, arn + ":3", "/app/db:live#k", "/app/prod/", "db?version=3", "/a?region=eu-west-1&label=x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, path string) {
		first, err := parse("aws-ssm:" + path)
		if err != nil {
			return
		}
		second, err := parse(first.String())
		if err != nil {
			t.Fatalf("%q became %q, and that is refused: %v", path, first, err)
		}
		if !reflect.DeepEqual(first, second) {
			t.Errorf("%q became %#v, and that %#v", path, first, second)
		}
	})
}

package awssm_test

import (
	"reflect"
	"strings"
	"testing"

	"secret-init/sources"
	"secret-init/sources/awssm"
)

const arn = "arn:aws:secretsmanager:eu-central-1:123456789012:secret:prod/db-AbCdEf"

func parse(s string) (sources.Ref, error) {
	return sources.NewRegistry(awssm.Backend).Parse(s)
}

func TestCanonicalForm(t *testing.T) {
	for ref, want := range map[string]string{
		"aws-sm:prod/db":                                     "aws-sm:prod/db",
		"aws-sm:prod/db#user":                                "aws-sm:prod/db#user",
		"aws-sm:prod/db?stage=AWSCURRENT#user":               "aws-sm:prod/db#user",
		"aws-sm:prod/db?stage=AWSPENDING":                    "aws-sm:prod/db?stage=AWSPENDING",
		"aws-sm:prod/db?stage=AWSCURRENT&version-id=v1":      "aws-sm:prod/db?stage=AWSCURRENT&version-id=v1",
		"aws-sm:rds!cluster-1a96bebc#password":               "aws-sm:rds!cluster-1a96bebc#password",
		"aws-sm:prod/db?region=cn-north-1":                   "aws-sm:prod/db?region=cn-north-1",
		"aws-sm:" + arn:                                      "aws-sm:" + arn,
		"aws-sm:" + arn + "#user":                            "aws-sm:" + arn + "#user",
		"aws-sm:" + arn + "?region=eu-central-1#user":        "aws-sm:" + arn + "#user",
		"aws-sm:" + arn + "?region=eu-west-1":                "aws-sm:" + arn + "?region=eu-west-1",
		"aws-sm:" + arn + ":::":                              "aws-sm:" + arn,
		"aws-sm:" + arn + ":user::":                          "aws-sm:" + arn + "#user",
		"aws-sm:" + arn + "::AWSPREVIOUS:":                   "aws-sm:" + arn + "?stage=AWSPREVIOUS",
		"aws-sm:" + arn + ":::v1":                            "aws-sm:" + arn + "?version-id=v1",
		"aws-sm:" + arn + ":user:AWSCURRENT:":                "aws-sm:" + arn + "#user",
		"aws-sm:" + arn + ":user:AWSPENDING:v1":              "aws-sm:" + arn + "?stage=AWSPENDING&version-id=v1#user",
		"aws-sm:" + arn + ":user::v1?optional=true":          "aws-sm:" + arn + "?optional=true&version-id=v1#user",
		"aws-sm:" + arn + ":a b~1::":                         "aws-sm:" + arn + "#a b~1",
		"aws-sm:" + arn + ":/a/b~::":                         "aws-sm:" + arn + "#/~1a~1b~0",
		"aws-sm:" + strings.Replace(arn, "aws", "aws-cn", 1): "aws-sm:" + strings.Replace(arn, "aws", "aws-cn", 1),
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
		"aws-sm:prod:db":        "has a colon, which no secret's name can have",
		"aws-sm:prod/db:user::": "has a colon, which no secret's name can have",
		"aws-sm:prod db":        "is not the name of a secret",
		"aws-sm:prod/db?stage=": `parameter "stage" is empty`,
		"aws-sm:prod/db?region=eu-central-1.evil.example%2F":            `has "eu-central-1.evil.example/" where the region belongs`,
		"aws-sm:prod/db?label=x":                                        `unknown parameter "label"`,
		"aws-sm:arn:aws:secretsmanager":                                 "is not a whole ARN",
		"aws-sm:arn:aws:secretsmanager:eu-central-1::secret:x":          "is an ARN without its account",
		"aws-sm:arn:aws:secretsmanager::123456789012:secret:x":          `has "" where the region belongs`,
		"aws-sm:arn:aws:s3:eu-central-1:123456789012:secret:x":          "is not the ARN of a secret",
		"aws-sm:arn:aws:ssm:eu-central-1:123456789012:parameter/x":      "is the ARN of a parameter, not of a secret",
		"aws-sm:arn:aws:secretsmanager:eu-central-1:123456789012:other": "is not the ARN of a secret",
		"aws-sm:" + arn + ":user":                                       "has 1 of the 3 parts that follow a secret's ARN",
		"aws-sm:" + arn + ":user:":                                      "has 2 of the 3 parts that follow a secret's ARN",
		"aws-sm:" + arn + ":user:::":                                    "has 4 of the 3 parts that follow a secret's ARN",
		"aws-sm:" + arn + ":user::#user":                                "has both ECS's suffix and a #key",
		"aws-sm:" + arn + ":::#user":                                    "has both ECS's suffix and a #key",
		"aws-sm:" + arn + "::AWSPENDING:?stage=AWSPREVIOUS":             "has both ECS's suffix and the parameter stage",
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
	for _, suffix := range []string{"", ":user::", ":::", ":/a/b:AWSPENDING:v1", "#/a/0", "?region=eu-west-1&stage=x#k", ":a%3Fb::"} {
		f.Add(arn + suffix)
	}
	f.Add("prod/db?stage=AWSCURRENT#key")
	f.Fuzz(func(t *testing.T, path string) {
		first, err := parse("aws-sm:" + path)
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

package awsconfig

import "testing"

func FuzzParseARN(f *testing.F) {
	for _, s := range []string{
		"arn:aws:secretsmanager:eu-central-1:123456789012:secret:db-AbCdEf",
		"arn:aws-us-gov:ssm:us-gov-west-1:123456789012:parameter/app/db",
		"arn:aws:ssm", "arn:::::",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		arn, err := ParseARN(s)
		if err == nil && arn.String() != s {
			t.Errorf("%q came back as %q", s, arn)
		}
	})
}

func TestPartition(t *testing.T) {
	for region, want := range map[string]string{
		"eu-central-1": "aws", "us-east-1": "aws", "cn-north-1": "aws-cn", "us-gov-west-1": "aws-us-gov",
		"us-iso-east-1": "aws-iso", "us-isob-east-1": "aws-iso-b", "eusc-de-east-1": "aws-eusc",
	} {
		if got := Partition(region); got != want {
			t.Errorf("%s is in %q, want %q", region, got, want)
		}
	}
}

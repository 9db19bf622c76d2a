package meter

import (
	"github.com/cockroachdb/apd/v3"
)

// Decimal is an exact decimal number that keeps its trailing zeros: "120.00" stays "120.00". On the wire it
// is a JSON string, so that no reader rounds it to a binary fraction.
type Decimal struct{ d apd.Decimal }

// decimalDigits bounds both the digits and the exponent of a Decimal that is parsed: a meter's register has
// eight to twelve digits, and an exponent of a billion would be a gigabyte of zeros.
const decimalDigits = 24

// NewDecimal returns coefficient × 10^-scale with scale decimals, e.g. NewDecimal(12345, 2) = 123.45.
func NewDecimal(coefficient int64, scale int32) Decimal {
	return Decimal{*apd.New(coefficient, -scale)}
}

// ParseDecimal reads a decimal number in plain or scientific notation. It returns CodeBadAnswer if s is none,
// is not finite, or has more than 24 digits on either side of the point.
func ParseDecimal(s string) (Decimal, error) {
	if len(s) > 3*decimalDigits {
		return Decimal{}, Errorf(CodeBadAnswer, "the number %.40q is too long", s)
	}
	var d Decimal
	if _, _, err := d.d.SetString(s); err != nil || d.d.Form != apd.Finite {
		return Decimal{}, Errorf(CodeBadAnswer, "%.40q is not a decimal number", s)
	}
	if d.d.NumDigits() > decimalDigits || d.d.Exponent > decimalDigits || d.d.Exponent < -decimalDigits {
		return Decimal{}, Errorf(CodeBadAnswer, "the number %.40q has more than %d digits", s, decimalDigits)
	}
	return d, nil
}

// String returns the number in plain notation with all its decimals.
func (d Decimal) String() string { return d.d.Text('f') }

// Negative reports whether the number is below zero.
func (d Decimal) Negative() bool { return d.d.Sign() < 0 }

// Cmp is -1, 0 or 1 as d is less than, equal to or greater than o; 1.5 equals 1.50.
func (d Decimal) Cmp(o Decimal) int { return d.d.Cmp(&o.d) }

func (d Decimal) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

func (d *Decimal) UnmarshalText(b []byte) (err error) {
	*d, err = ParseDecimal(string(b))
	return err
}

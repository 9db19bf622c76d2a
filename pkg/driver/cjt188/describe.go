package cjt188

import (
	"fmt"
	"strings"

	"github.com/dianchao/dianchao/pkg/driver"
)

// functions are what C asks for, by its lower bits.
var functions = map[byte]string{
	0x01: "read", 0x03: "read address", 0x04: "write", 0x09: "read key version", 0x15: "write address", 0x16: "set base reading",
}

var _ driver.Describer = (*Driver)(nil)

// Describe implements driver.Describer.
func (d *Driver) Describe(b []byte) string {
	f, err := Parse(b)
	if err != nil {
		return ""
	}
	function, known := functions[f.Control&^(Reply|Refusal)]
	if !known {
		function = fmt.Sprintf("control %02X", f.Control)
	}
	says := []string{"CJ/T 188 " + function}
	switch {
	case f.Control&Refusal != 0:
		says[0] += " refused"
	case f.Control&Reply != 0:
		says[0] += " answer"
	}
	if di, ok := f.DI(); ok {
		says[0] += " " + di.String()
	}
	says = append(says, "meter "+f.Address.String())
	if serial, ok := f.Serial(); ok {
		says = append(says, fmt.Sprintf("SER %02X", serial))
	}
	if f.Control&Refusal != 0 && len(f.Data) > 1 {
		says = append(says, fmt.Sprintf("status %X", f.Data[1:]))
	}
	if r, err := f.Reading(); err == nil && r.Volume != nil {
		says = append(says, r.Volume.String()+" m³")
	}
	return strings.Join(says, ", ")
}

// Package drivers is the list of the protocols that the gateway speaks.
package drivers

import (
	"fmt"
	"reflect"
	"strings"

	"github.com/alecthomas/kong"

	"github.com/dianchao/dianchao/pkg/driver"
	"github.com/dianchao/dianchao/pkg/driver/cjt188"
	"github.com/dianchao/dianchao/pkg/driver/clicktocopy"
)

// Drivers holds every driver with its options, to be embedded in a command's flags. A driver is added here:
// one line whose prefix is the driver's name.
type Drivers struct {
	CJT188      cjt188.Driver      `embed:"" prefix:"cjt188-"`
	ClickToCopy clicktocopy.Driver `embed:"" prefix:"clicktocopy-"`
}

// New returns all drivers with their defaults.
func New() Drivers {
	var d Drivers
	if err := kong.ApplyDefaults(&d); err != nil {
		panic("drivers: the defaults in the drivers' tags: " + err.Error())
	}
	return d
}

// All returns the drivers in the order of their fields. They share their options with d.
func (d *Drivers) All() []driver.Driver {
	fields := reflect.ValueOf(d).Elem()
	all := make([]driver.Driver, fields.NumField())
	for i := range all {
		all[i] = fields.Field(i).Addr().Interface().(driver.Driver)
	}
	return all
}

// ByName returns the driver of that name, or an error that lists the names there are.
func (d *Drivers) ByName(name string) (driver.Driver, error) {
	var known []string
	for _, one := range d.All() {
		if one.Name() == name {
			return one, nil
		}
		known = append(known, one.Name())
	}
	return nil, fmt.Errorf("there is no driver %q, known are %s", name, strings.Join(known, ", "))
}

// Validate returns the first error of a driver's options.
func (d *Drivers) Validate() error {
	for _, one := range d.All() {
		if err := one.Validate(); err != nil {
			return err
		}
	}
	return nil
}

package edge

import (
	"bytes"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"unicode/utf8"

	"golang.org/x/text/encoding/simplifiedchinese"

	"github.com/dianchao/dianchao/pkg/meter"
)

// listLimit bounds how many meters one answer lists.
const listLimit = 1000

// ListedMeter is a meter that the operator listed, so that people can choose it.
type ListedMeter struct {
	Concentrator meter.ConcentratorID `json:"concentrator"`
	Meter        meter.Address        `json:"meter"`
	Name         string               `json:"name"`
}

// directory is the listed meters, in the order they were listed.
type directory struct {
	all            []ListedMeter
	byConcentrator map[meter.ConcentratorID][]ListedMeter
}

func newDirectory(listed []ListedMeter) directory {
	d := directory{listed, map[meter.ConcentratorID][]ListedMeter{}}
	for _, m := range listed {
		d.byConcentrator[m.Concentrator] = append(d.byConcentrator[m.Concentrator], m)
	}
	return d
}

// of returns the first listLimit meters of a concentrator, or of all if it is zero, and how many there are.
func (d directory) of(c meter.ConcentratorID) ([]ListedMeter, int) {
	listed := d.all
	if !c.IsZero() {
		listed = d.byConcentrator[c]
	}
	shown := listed[:min(len(listed), listLimit)]
	if shown == nil {
		shown = []ListedMeter{}
	}
	return shown, len(listed)
}

func loadMeters(path string) ([]ListedMeter, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	listed, err := parseMeters(b)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return listed, nil
}

// parseMeters reads CSV of concentrator,meter,name; the name may be missing, and the first line may hold the columns'
// names. What is not UTF-8 is taken for GB18030, which is what Chinese spreadsheets write. Errors name the line.
func parseMeters(b []byte) ([]ListedMeter, error) {
	b = bytes.TrimPrefix(b, []byte("\xef\xbb\xbf"))
	if !utf8.Valid(b) {
		var err error
		if b, err = simplifiedchinese.GB18030.NewDecoder().Bytes(b); err != nil {
			return nil, fmt.Errorf("the text is neither UTF-8 nor GB18030: %w", err)
		}
	}
	rows := csv.NewReader(bytes.NewReader(b))
	rows.FieldsPerRecord = -1
	rows.TrimLeadingSpace = true
	var listed []ListedMeter
	for first := true; ; first = false {
		row, err := rows.Read()
		if errors.Is(err, io.EOF) {
			return listed, nil
		}
		if err != nil {
			return nil, err
		}
		if first && isHeading(row) {
			continue
		}
		line, _ := rows.FieldPos(0)
		m, err := parseRow(row)
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", line, err)
		}
		listed = append(listed, m)
	}
}

// isHeading tells columns' names from numbers: there is no digit in them.
func isHeading(row []string) bool {
	return !strings.ContainsAny(strings.Join(row[:min(2, len(row))], ""), "0123456789")
}

func parseRow(row []string) (m ListedMeter, err error) {
	if len(row) < 2 || len(row) > 3 {
		return m, fmt.Errorf("%d fields, expected concentrator,meter,name", len(row))
	}
	if m.Concentrator, err = meter.ParseConcentratorID(strings.TrimSpace(row[0])); err != nil {
		return m, errors.New(meter.AsError(err).Message)
	}
	if m.Meter, err = meter.ParseAddress(strings.TrimSpace(row[1])); err != nil {
		return m, errors.New(meter.AsError(err).Message)
	}
	if len(row) == 3 {
		m.Name = strings.TrimSpace(row[2])
	}
	return m, nil
}

package simulator

import (
	"fmt"

	"github.com/dianchao/dianchao/pkg/meter"
)

// Entry is one meter of the town and where it is installed.
type Entry struct {
	Concentrator meter.ConcentratorID
	Meter        meter.Address
	Name         string // e.g. 幸福小区 3栋 2单元 501
}

// estates are the housing estates (小区) of the town; a concentrator serves buildings of one of them.
var estates = [...]string{
	"幸福小区", "阳光花园", "翠湖新村", "和平里", "朝阳小区", "金桂苑", "文汇家园", "滨江花园",
	"建设新村", "梅园小区", "锦绣家园", "东风里", "学府佳苑", "桃源小区", "南湖花园", "安居苑",
	"银杏小区", "向阳新村", "书香门第", "丽水家园", "青年公寓", "莲花小区", "康宁里", "星河湾",
}

// How a building is laid out.
const (
	metersPerFloor   = 2
	floorsPerUnit    = 6
	unitsPerBuilding = 4
	metersPerUnit    = metersPerFloor * floorsPerUnit
	// buildingsPerConcentrator is enough for MaxMeters.
	buildingsPerConcentrator = (MaxMeters + metersPerUnit*unitsPerBuilding - 1) / (metersPerUnit * unitsPerBuilding)
)

// Directory lists every meter of the town in the order of its address. The names are the same each time and no
// two meters share one. It takes about 150 bytes a meter.
func (t Town) Directory() []Entry {
	entries := make([]Entry, 0, t.Concentrators*t.Meters)
	for c := range t.Concentrators {
		for m := range t.Meters {
			p := place{firstConcentrator + c, m + 1}
			entries = append(entries, Entry{p.concentratorID(), p.address(), p.name()})
		}
	}
	return entries
}

func (p place) name() string {
	c, m := p.concentrator-firstConcentrator, p.meter-1
	unit := m / metersPerUnit
	building := c/len(estates)*buildingsPerConcentrator + unit/unitsPerBuilding + 1
	floor := m%metersPerUnit/metersPerFloor + 1
	door := m%metersPerFloor + 1
	return fmt.Sprintf("%s %d栋 %d单元 %d%02d", estates[c%len(estates)], building, unit%unitsPerBuilding+1, floor, door)
}

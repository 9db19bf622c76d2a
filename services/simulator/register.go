package simulator

import (
	"time"

	"github.com/dianchao/dianchao/pkg/meter"
)

// A register counts one step of 0.01 m³ every five minutes: about what a corner shop uses, and fast enough to be
// seen growing. All meters count at this one pace, only at different moments, so the distance between two of them
// stays what it was at the beginning, give or take one step.
const (
	step          = 5 * time.Minute
	volumeScale   = 2
	registerSteps = 100_000_000 // eight BCD digits
)

// Where a meter begins: multiples of the golden ratio's part of baseSteps are spread evenly however many of them
// are taken, so that no two meters come close in a small town nor in a large one (closest in a town of 3x20:
// 387 m³; of 200x20: 53 m³; of 10000x20: 2.35 m³). What remains above baseSteps is room for 95 years of counting.
const (
	baseSteps  = 90_000_000
	baseStride = 55_623_061 // no factor in common with baseSteps, so that nothing repeats among the first 90 million
)

var epoch = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)

// Volume is what meter m behind concentrator c shows at a moment: m³ with two decimals. It never falls, grows by
// 0.01 every five minutes, and differs from every other meter's of the town by far more than it grows while an
// answer travels. Leading zeros of m do not matter. It returns zero for what no town has.
func Volume(c meter.ConcentratorID, m meter.Address, at time.Time) meter.Decimal {
	p, ok := placeOf(m.String())
	if !ok || p.concentratorID() != c {
		return meter.NewDecimal(0, volumeScale)
	}
	return meter.NewDecimal(int64(p.steps(at)), volumeScale)
}

// steps is the register at a moment, in 0.01 m³.
func (p place) steps(at time.Time) uint32 {
	index := int64(p.concentrator-firstConcentrator)*MaxMeters + int64(p.meter-1)
	base := index * baseStride % baseSteps
	phase := time.Duration(base) * (step / baseSteps)
	counted := (max(at.Sub(epoch), 0) + phase) / step
	return uint32((base + int64(counted)) % registerSteps)
}

// settlementSteps is the register at the start of the month that a moment lies in, by the moment's own zone.
func (p place) settlementSteps(at time.Time) uint32 {
	year, month, _ := at.Date()
	return p.steps(time.Date(year, month, 1, 0, 0, 0, 0, at.Location()))
}

// Among twenty meters behind a concentrator, one has its valve closed and one or two a low battery. A closed
// valve's register counts on: if it stood still, others would come to show its value.
func (p place) valveClosed() bool { return (p.concentrator+p.meter)%19 == 0 }

func (p place) batteryLow() bool { return (p.concentrator+p.meter)%13 == 0 }

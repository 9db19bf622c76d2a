package gateway

import (
	"bytes"
	"encoding/json"
	"slices"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/dianchao/dianchao/pkg/driver"
	"github.com/dianchao/dianchao/pkg/meter"
)

// frameLog keeps the last frames of a link (报文), and outlives it: why a link went down shows in what came before.
type frameLog struct {
	mu       sync.Mutex
	driver   driver.Driver
	frames   []loggedFrame // a ring once it has meter.MaxFrames
	next     int
	watchers []watcher
}

type loggedFrame struct {
	at        time.Time
	direction meter.Direction
	kind      meter.FrameKind
	count     int
	bytes     []byte
}

// watcher is somebody who is told every new frame for a while.
type watcher struct {
	reply        string
	until        time.Time
	concentrator meter.ConcentratorID
	tell         func(string, meter.FrameLog)
}

const (
	maxLoggedBytes = 256 // of one frame or one piece of noise
	maxWatchers    = 64  // of one link; one more takes the place of the oldest
)

// add records a frame. raw is copied.
func (l *frameLog) add(d meter.Direction, k meter.FrameKind, raw []byte) {
	raw = raw[:min(len(raw), maxLoggedBytes)]
	l.mu.Lock()
	defer l.mu.Unlock()
	f := l.slot(d, k, raw)
	f.at = time.Now()
	if len(l.watchers) > 0 {
		l.tellWatchers(*f)
	}
}

// slot returns where the frame stands now: in the last one's place if it is equal, else in the oldest's.
func (l *frameLog) slot(d meter.Direction, k meter.FrameKind, raw []byte) *loggedFrame {
	if n := len(l.frames); n > 0 {
		last := &l.frames[(l.next+n-1)%n]
		if last.direction == d && last.kind == k && bytes.Equal(last.bytes, raw) {
			last.count++
			return last
		}
	}
	if len(l.frames) < meter.MaxFrames {
		l.frames = append(l.frames, loggedFrame{direction: d, kind: k, count: 1, bytes: bytes.Clone(raw)})
		return &l.frames[len(l.frames)-1]
	}
	f := &l.frames[l.next]
	l.next = (l.next + 1) % len(l.frames)
	f.direction, f.kind, f.count = d, k, 1
	f.bytes = append(f.bytes[:0], raw...)
	return f
}

func (l *frameLog) tellWatchers(f loggedFrame) {
	l.watchers = slices.DeleteFunc(l.watchers, func(w watcher) bool { return f.at.After(w.until) })
	for _, w := range l.watchers {
		w.tell(w.reply, meter.FrameLog{Concentrator: w.concentrator, Frames: []meter.LoggedFrame{l.describe(f)}})
	}
}

// answer tells who asks, and remembers a watcher.
func (l *frameLog) answer(w watcher, wish meter.FramesWish) {
	l.mu.Lock()
	defer l.mu.Unlock()
	w.tell(w.reply, meter.FrameLog{Concentrator: w.concentrator, Frames: l.last(wish.Last)})
	l.watchers = slices.DeleteFunc(l.watchers, func(old watcher) bool { return old.reply == w.reply })
	if wish.Watch == 0 {
		return
	}
	if len(l.watchers) == maxWatchers {
		l.watchers = slices.Delete(l.watchers, 0, 1)
	}
	w.until = time.Now().Add(wish.Watch)
	l.watchers = append(l.watchers, w)
}

// last returns the newest n frames, newest last.
func (l *frameLog) last(n int) []meter.LoggedFrame {
	have := len(l.frames)
	n = min(n, have)
	out := make([]meter.LoggedFrame, 0, n)
	for i := have - n; i < have; i++ {
		out = append(out, l.describe(l.frames[(l.next+i)%have]))
	}
	return out
}

func (l *frameLog) describe(f loggedFrame) meter.LoggedFrame {
	out := meter.LoggedFrame{
		At: f.at.UTC().Truncate(time.Millisecond), Direction: f.direction, Kind: f.kind, Bytes: bytes.Clone(f.bytes),
	}
	if f.count > 1 {
		out.Count = f.count
	}
	if d, ok := l.driver.(driver.Describer); ok {
		out.Meaning = d.Describe(f.bytes)
	}
	return out
}

// continues takes over what was logged before under the same name. The older link may still log, so it keeps its own.
func (l *frameLog) continues(older *frameLog) {
	older.mu.Lock()
	frames, watchers := older.inOrder(), slices.Clone(older.watchers)
	for i := range frames {
		frames[i].bytes = bytes.Clone(frames[i].bytes)
	}
	older.mu.Unlock()
	l.mu.Lock()
	defer l.mu.Unlock()
	all := append(frames, l.inOrder()...)
	l.frames, l.next = all[max(0, len(all)-meter.MaxFrames):], 0
	l.watchers = append(watchers, l.watchers...)
}

func (l *frameLog) inOrder() []loggedFrame {
	return slices.Concat(l.frames[l.next:], l.frames[:l.next])
}

// maxOldLogs is how many logs of links that are down are kept.
const maxOldLogs = 10_000

// keepLog makes l's log the one that is shown for c. mu is held.
func (g *Gateway) keepLog(c meter.ConcentratorID, l *frameLog) {
	if older := g.logs[c]; older != nil && older != l {
		l.continues(older)
	}
	g.logs[c] = l
	if len(g.logs) <= len(g.holders)+maxOldLogs {
		return
	}
	for old := range g.logs {
		if g.holders[old] == nil {
			delete(g.logs, old)
			return
		}
	}
}

// framesAsked answers on meter.SubjectFrames if that is this gateway's to do.
func (g *Gateway) framesAsked(m *nats.Msg) {
	c, err := meter.ConcentratorOf(m.Subject)
	if err != nil {
		if g.leases.first(g.id) {
			g.tellFrames(m.Reply, meter.FrameLog{Error: meter.AsError(err)})
		}
		return
	}
	g.mu.Lock()
	l, held := g.logs[c], g.holders[c] != nil
	g.mu.Unlock()
	if said, known := g.claims.get(c); !held && known && said.Gateway != g.id && g.leases.alive(said.Gateway) {
		return // that gateway answers
	} else if !held && (l == nil || !known || said.Gateway != g.id) {
		if g.leases.first(g.id) {
			g.tellFrames(m.Reply, meter.FrameLog{Concentrator: c, Error: meter.Errorf(meter.CodeConcentratorOffline,
				"no gateway knows what concentrator %s sent lately; check its number, and whether it has ever logged in", c)})
		}
		return
	}
	wish, err := meter.ParseFramesWish(m.Data)
	if err != nil {
		g.tellFrames(m.Reply, meter.FrameLog{Concentrator: c, Error: meter.AsError(err)})
		return
	}
	l.answer(watcher{reply: m.Reply, concentrator: c, tell: g.tellFrames}, wish)
}

func (g *Gateway) tellFrames(reply string, l meter.FrameLog) {
	l.Gateway = g.id
	b, err := json.Marshal(l)
	if err == nil && reply != "" {
		err = g.nc.Publish(reply, b)
	}
	if err != nil {
		g.log.Warn("frames could not be told", "concentrator", l.Concentrator, "err", err)
	}
}

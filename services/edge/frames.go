package edge

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/dianchao/dianchao/pkg/meter"
)

// maxFrameWatches bounds the links whose frames one session watches.
const maxFrameWatches = 4

// reportQueue is how many reports of a gateway may wait for a watch.
const reportQueue = 256

// framesMessage tells a client what went over a link. Frames are passed on as the gateway gave them.
type framesMessage struct {
	Type         string               `json:"type"`
	Concentrator meter.ConcentratorID `json:"concentrator"`
	Full         bool                 `json:"full,omitempty"` // replaces all that was told before
	Gateway      meter.GatewayID      `json:"gateway,omitzero"`
	Frames       []json.RawMessage    `json:"frames"`
	Error        *meter.Error         `json:"error,omitempty"`
}

// frameReport is what the edge needs of a gateway's meter.FrameLog.
type frameReport struct {
	Gateway meter.GatewayID   `json:"gateway"`
	Frames  []json.RawMessage `json:"frames"`
	Error   *meter.Error      `json:"error"`
}

// frameWatches are the links whose frames one session watches. What is to be told of a link waits here as one message
// of at most meter.MaxFrames frames: for a client that reads slowly the oldest give way, and it starts anew with the rest.
type frameWatches struct {
	edge  *Edge
	ready chan struct{} // has a token while something is to be told

	mu      sync.Mutex
	watches map[meter.ConcentratorID]*frameWatch
	running sync.WaitGroup
}

func newFrameWatches(e *Edge) *frameWatches {
	return &frameWatches{edge: e, ready: make(chan struct{}, 1), watches: map[meter.ConcentratorID]*frameWatch{}}
}

// start tells the last frames of a link and every new one until end; anew if it does so already. It returns
// CodeTooManyCommands if the session watches as many links as it may.
func (f *frameWatches) start(c meter.ConcentratorID) *meter.Error {
	f.end(c)
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.watches) >= maxFrameWatches {
		return meter.Errorf(meter.CodeTooManyCommands, "the frames of %d concentrators are watched in this session, which is its limit: end one before concentrator %s", maxFrameWatches, c)
	}
	ctx, stop := context.WithCancel(f.edge.life)
	w := &frameWatch{of: f, edge: f.edge, concentrator: c, stop: stop, inbox: nats.NewInbox()}
	f.watches[c] = w
	f.running.Go(func() { w.run(ctx) })
	return nil
}

func (f *frameWatches) end(c meter.ConcentratorID) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if w := f.watches[c]; w != nil {
		w.stop()
		delete(f.watches, c)
	}
}

// close ends all watches and waits for them.
func (f *frameWatches) close() {
	f.mu.Lock()
	for _, w := range f.watches {
		w.stop()
	}
	f.mu.Unlock()
	f.running.Wait()
}

// next returns a message that is to be told, nil if there is none.
func (f *frameWatches) next() []byte {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, w := range f.watches {
		if m := w.untold; m != nil {
			w.untold = nil
			f.signal() // there may be one of another link
			return encode(m)
		}
	}
	return nil
}

func (f *frameWatches) signal() {
	select {
	case f.ready <- struct{}{}:
	default:
	}
}

// watchState is how far a frameWatch has come with its gateway.
type watchState uint8

const (
	watchAsked    watchState = iota // for all frames kept; the first answer is those
	watchFollows                    // the gateway tells every new frame
	watchRenewing                   // the same, and it was asked to go on
	watchRests                      // what comes does not count until the next ask
)

// frameWatch keeps a gateway telling the frames of one link: it asks the one that holds the link to go on before its
// time is up, and asks for everything anew whenever frames may have been missed.
type frameWatch struct {
	of           *frameWatches
	edge         *Edge
	concentrator meter.ConcentratorID
	stop         context.CancelFunc
	untold       *framesMessage // guarded by of.mu

	// What follows belongs to run.
	inbox    string
	state    watchState
	round    int         // of asking for everything; each has a reply subject, so that what an older one brings is known
	due      *time.Timer // the next step, whatever state it is in
	unheld   int         // asks in a row that no gateway took or answered
	failures int         // errors in a row
	told     *meter.Error
	link     meter.Link // as the board had it at the last ask
	backAt   int64      // the edge's, at the last ask
	dropped  int        // reports that the queue had no room for
}

func (w *frameWatch) run(ctx context.Context) {
	reports := make(chan *nats.Msg, reportQueue)
	sub, err := w.edge.nc.ChanSubscribe(w.inbox+".*", reports)
	if err != nil {
		w.tell(framesMessage{Full: true, Error: meter.Errorf(meter.CodeInternal, "the frames cannot be subscribed to: %v", err)})
		return
	}
	defer func() {
		if err := sub.Unsubscribe(); err != nil {
			w.edge.log.Debug("a watch of frames ends without NATS", "err", err)
		}
	}()
	turned := w.edge.board.turning()
	w.due = time.NewTimer(0)
	defer w.due.Stop()
	w.ask()
	for {
		select {
		case <-ctx.Done():
			return
		case m := <-reports:
			w.hear(m)
			w.noticeDropped(sub)
		case <-turned:
			turned = w.edge.board.turning()
			if w.moved() {
				w.ask()
			}
		case <-w.due.C:
			w.next()
		}
	}
}

// ask asks for all frames that are kept, and for what follows.
func (w *frameWatch) ask() {
	w.round++
	w.state = watchAsked
	w.link, _ = w.edge.board.link(w.concentrator)
	w.backAt = w.edge.backAt.Load()
	w.wish(meter.MaxFrames)
}

// renew asks the gateway to go on. It knows who asks by the reply subject, so that nothing comes twice.
func (w *frameWatch) renew() {
	w.state = watchRenewing
	w.wish(0)
}

func (w *frameWatch) wish(last int) {
	err := w.edge.nc.PublishRequest(meter.SubjectFrames(w.concentrator), w.reply(), encodeWish(last, w.edge.pace.framesWatch))
	if err != nil {
		w.fail(errCutOff)
		return
	}
	w.due.Reset(w.edge.pace.framesReply)
}

func encodeWish(last int, watch time.Duration) []byte {
	return fmt.Appendf(nil, `{"last":%d,"watch_ms":%d}`, last, watch.Milliseconds())
}

func (w *frameWatch) reply() string { return w.inbox + "." + strconv.Itoa(w.round) }

// moved reports whether frames may have been missed since the last ask: the concentrator logged in again, or NATS
// was away.
func (w *frameWatch) moved() bool {
	l, known := w.edge.board.link(w.concentrator)
	return w.backAt != w.edge.backAt.Load() ||
		known && l.State == meter.LinkUp && (l.Gateway != w.link.Gateway || !l.Since.Equal(w.link.Since))
}

// next is called when an answer is overdue, or it is time to ask.
func (w *frameWatch) next() {
	switch w.state {
	case watchFollows:
		w.renew()
	case watchRests:
		w.ask()
	case watchAsked, watchRenewing:
		// NATS delivers at most once: one lost message is no news.
		if w.unheld++; w.unheld == 1 {
			w.ask()
			return
		}
		w.fail(w.edge.offline(w.concentrator))
	}
}

// hear takes a report of a gateway.
func (w *frameWatch) hear(m *nats.Msg) {
	if w.state == watchRests || m.Subject != w.reply() {
		return
	}
	if len(m.Data) == 0 && m.Header.Get("Status") == "503" {
		w.nobodyThere()
		return
	}
	var r frameReport
	if err := json.Unmarshal(m.Data, &r); err != nil {
		w.edge.log.Warn("a report of frames is none", "concentrator", w.concentrator.String(), "err", err)
		return
	}
	switch {
	case r.Error != nil:
		w.fail(r.Error)
	case w.state == watchAsked:
		w.tell(framesMessage{Full: true, Gateway: r.Gateway, Frames: r.Frames})
		w.follow()
	case len(r.Frames) > 0:
		w.tell(framesMessage{Gateway: r.Gateway, Frames: r.Frames})
	default: // what it says to a renewal
		w.follow()
	}
}

func (w *frameWatch) follow() {
	w.state = watchFollows
	w.unheld, w.failures, w.told = 0, 0, nil
	w.due.Reset(w.edge.pace.framesRenew)
}

// nobodyThere is called when no gateway took the ask. Interest in a subject spreads asynchronously, and after NATS was
// away gateways need as long as we did to come back, so that counts only after a few tries.
func (w *frameWatch) nobodyThere() {
	waits := w.edge.pace.unheld
	settling := time.Since(time.Unix(0, w.edge.backAt.Load())) < w.edge.pace.settle
	if w.unheld < len(waits) || settling {
		w.rest(waits[min(w.unheld, len(waits)-1)])
		w.unheld++
		return
	}
	w.fail(w.edge.offline(w.concentrator))
}

// fail tells the client why no frames come, unless it knows, and asks again later.
func (w *frameWatch) fail(why *meter.Error) {
	if w.told == nil || *w.told != *why {
		w.told = why
		w.tell(framesMessage{Full: true, Error: why})
	}
	w.rest(min(w.edge.pace.framesRenew, w.edge.pace.framesReply<<min(w.failures, 16)))
	w.failures++
}

// rest lets everything go by until the next ask, which is due after a while.
func (w *frameWatch) rest(wait time.Duration) {
	w.state = watchRests
	w.due.Reset(wait)
}

// noticeDropped asks anew after reports were dropped, as when a link brings nothing but noise, but not at the pace of
// the drops.
func (w *frameWatch) noticeDropped(sub *nats.Subscription) {
	n, err := sub.Dropped()
	if err == nil && n != w.dropped {
		w.dropped = n
		w.rest(w.edge.pace.framesAnew)
	}
}

// tell adds to what is to be told.
func (w *frameWatch) tell(m framesMessage) {
	m.Type, m.Concentrator = "frames", w.concentrator
	if m.Frames == nil {
		m.Frames = []json.RawMessage{}
	}
	f := w.of
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.watches[w.concentrator] != w {
		return // it was ended
	}
	if w.untold == nil || m.Full {
		w.untold = &m
	} else {
		w.untold.Frames = append(w.untold.Frames, m.Frames...)
	}
	if over := len(w.untold.Frames) - meter.MaxFrames; over > 0 {
		w.untold.Frames = slices.Delete(w.untold.Frames, 0, over)
		w.untold.Full = true
	}
	f.signal()
}

// serveFrames answers with the last frames of one link, as its gateway gives them.
func (e *Edge) serveFrames(w http.ResponseWriter, r *http.Request) {
	c, err := meter.ParseConcentratorID(r.PathValue("concentrator"))
	if err != nil {
		writeError(w, http.StatusBadRequest, meter.AsError(err))
		return
	}
	if !e.connected() {
		writeUnavailable(w, errCutOff)
		return
	}
	log := e.lastFrames(r.Context(), c)
	var report frameReport
	if err := json.Unmarshal(log, &report); err != nil {
		writeError(w, http.StatusInternalServerError, meter.Errorf(meter.CodeInternal, "the gateway's frames are no JSON: %v", err))
		return
	}
	if report.Error != nil {
		writeBody(w, cmp.Or(statuses[report.Error.Code], http.StatusInternalServerError), log)
		return
	}
	writeBody(w, http.StatusOK, log)
}

// lastFrames returns the answer of the gateway that knows the link, or one of our own if there is none.
func (e *Edge) lastFrames(ctx context.Context, c meter.ConcentratorID) []byte {
	ctx, cancel := context.WithTimeout(ctx, e.pace.framesReply)
	defer cancel()
	for tries := 0; ; tries++ {
		m, err := e.nc.RequestWithContext(ctx, meter.SubjectFrames(c), encodeWish(meter.MaxFrames, 0))
		if err == nil {
			return m.Data
		}
		if ctx.Err() != nil || tries >= len(e.pace.unheld) {
			return encode(meter.FrameLog{Concentrator: c, Error: e.offline(c)})
		}
		select {
		case <-time.After(e.pace.unheld[tries]):
		case <-ctx.Done():
		}
	}
}

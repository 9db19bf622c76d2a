package edge

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coder/websocket"

	"github.com/dianchao/dianchao/pkg/meter"
)

const (
	subprotocol = "dianchao.v1"
	sendQueue   = 256     // messages that wait to be written to one client
	readLimit   = 1 << 20 // bytes; a larger message closes the connection
)

// The close codes of docs/browser.md. From 4500 on a client does not reconnect.
const (
	closeDrained     websocket.StatusCode = 4000
	closeTooSlow     websocket.StatusCode = 4001
	closeSilent      websocket.StatusCode = 4002
	closeUnsupported websocket.StatusCode = 4500
)

// protocol is what a client and a socket say to each other. Its methods are called by the one goroutine that reads,
// but deliver, which the session calls, and greeting and farewell, which the one that writes calls.
type protocol interface {
	greeting() []byte
	// message takes a text message of at most meter.MaxCommandBytes; tooLarge takes note of one that was larger.
	message(text []byte)
	tooLarge()
	deliver(c *command, stage meter.Stage, answer []byte)
	// farewell is what to send when the node is about to leave, if anything, and the code to close with once nothing
	// is outstanding.
	farewell(reconnect time.Duration) ([]byte, websocket.StatusCode)
}

// socket is one WebSocket connection. One goroutine reads it and one writes it; everybody else only queues.
type socket struct {
	edge     *Edge
	conn     *websocket.Conn
	protocol protocol
	session  *session
	cut      context.CancelFunc // breaks the connection at once

	out       *queue
	subscribe chan bool // the newest wish to follow the links, or not to
	frames    *frameWatches
	lastSign  atomic.Int64 // when something came from the client last, Unix nanoseconds

	ending sync.Once
	ended  chan struct{} // closed once the connection is to be closed with code and reason
	code   websocket.StatusCode
	reason string
}

// serveSocket is the handler of a WebSocket for as long as it lives.
func (e *Edge) serveSocket(w http.ResponseWriter, r *http.Request) {
	k := &socket{
		edge: e,
		out:  newQueue(sendQueue), subscribe: make(chan bool, 1), frames: newFrameWatches(e), ended: make(chan struct{}),
	}
	offered := offeredSubprotocols(r)
	spoken := dialectClickToCopy
	k.protocol = &clickToCopy{socket: k}
	if len(offered) > 0 {
		spoken = dialectV1
		k.protocol = &sessionProtocol{socket: k}
	}
	s, refused := e.open(spoken, k.protocol.deliver)
	if refused != nil {
		writeUnavailable(w, refused)
		return
	}
	defer e.roster.remove(s)
	k.session = s

	conn, err := websocket.Accept(w, r, &websocket.AcceptOptions{
		// A browser only sees our close code if the handshake succeeds, so what is unknown is accepted first.
		Subprotocols:       append([]string{subprotocol}, offered...),
		OriginPatterns:     e.config.Origins,
		InsecureSkipVerify: e.config.anyOrigin(),
		OnPongReceived:     func(context.Context, []byte) { k.sign() },
	})
	if err != nil {
		e.log.Debug("WebSocket refused", "remote", r.RemoteAddr, "err", err)
		return
	}
	conn.SetReadLimit(readLimit)
	k.conn = conn
	if len(offered) > 0 && !strings.EqualFold(conn.Subprotocol(), subprotocol) {
		k.end(closeUnsupported, "the only subprotocol here is "+subprotocol)
	}
	k.serve()
}

// serve owns both goroutines of the connection.
func (k *socket) serve() {
	ctx, cut := context.WithCancel(k.edge.life)
	defer cut()
	k.cut = cut
	k.sign()
	var writer sync.WaitGroup
	writer.Go(func() { k.write(ctx) })
	k.read(ctx)
	k.frames.close()
	k.end(0, "")
	writer.Wait()
}

func offeredSubprotocols(r *http.Request) []string {
	var out []string
	for _, line := range r.Header.Values("Sec-WebSocket-Protocol") {
		for token := range strings.SplitSeq(line, ",") {
			if token = strings.TrimSpace(token); token != "" {
				out = append(out, token)
			}
		}
	}
	return out
}

func (k *socket) sign() { k.lastSign.Store(time.Now().UnixNano()) }

// send queues a message. A client that reads too slowly for the queue is closed.
func (k *socket) send(text []byte) {
	if !k.out.push(text) {
		k.end(closeTooSlow, fmt.Sprintf("%d messages wait to be read", sendQueue))
	}
}

// end closes the connection with this code, 0 if it is broken already. Only the first call counts.
func (k *socket) end(code websocket.StatusCode, reason string) {
	k.ending.Do(func() {
		k.code, k.reason = code, reason
		k.edge.metrics.countDropped(code)
		close(k.ended)
	})
}

func (k *socket) hasEnded() bool {
	select {
	case <-k.ended:
		return true
	default:
		return false
	}
}

// messageBuffers hold one message while it is read: an idle session has none.
var messageBuffers = sync.Pool{New: func() any { return new([meter.MaxCommandBytes + 1]byte) }}

// read takes messages until the connection breaks. Once it is to be closed it reads on without listening, since that
// is how the client's side of the close handshake comes in.
func (k *socket) read(ctx context.Context) {
	for {
		kind, r, err := k.conn.Reader(ctx)
		if err != nil {
			return
		}
		if kind == websocket.MessageBinary {
			k.end(closeUnsupported, "messages are text, this one is binary")
		}
		if err := k.readMessage(r); err != nil {
			if errors.Is(err, websocket.ErrMessageTooBig) {
				k.end(websocket.StatusMessageTooBig, fmt.Sprintf("a message has more than %d bytes", readLimit))
			}
			return
		}
		k.sign()
	}
}

func (k *socket) readMessage(r io.Reader) error {
	if k.hasEnded() {
		_, err := io.Copy(io.Discard, r)
		return err
	}
	buffer := messageBuffers.Get().(*[meter.MaxCommandBytes + 1]byte)
	defer messageBuffers.Put(buffer)
	n, err := io.ReadFull(r, buffer[:])
	switch {
	case err == nil:
		if _, err := io.Copy(io.Discard, r); err != nil {
			return err
		}
		k.protocol.tooLarge()
	case errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF):
		k.protocol.message(buffer[:n])
	default:
		return err
	}
	return nil
}

// write sends what is queued until the connection is to end.
func (k *socket) write(ctx context.Context) {
	var pings sync.WaitGroup
	defer pings.Wait()
	defer k.conn.CloseNow()
	ticks := time.NewTicker(k.edge.pace.ping)
	defer ticks.Stop()
	draining := (<-chan struct{})(k.edge.draining)
	var idle <-chan struct{} // nil until the node drains
	var leave websocket.StatusCode
	var links follower
	var err error
	if !k.hasEnded() {
		err = k.put(ctx, k.protocol.greeting())
	}
	for err == nil {
		select {
		case <-k.out.ready:
			if text := k.out.pop(); text != nil {
				err = k.put(ctx, text)
			}
		case <-k.ended:
			k.hangUp(ctx)
			return
		case wish := <-k.subscribe:
			links.follow(wish)
		case <-links.ready:
			if text := links.next(k.edge.board, presenceLinks); text != nil {
				err = k.put(ctx, text)
			}
		case <-k.frames.ready:
			if text := k.frames.next(); text != nil {
				err = k.put(ctx, text)
			}
		case <-ticks.C:
			if k.isSilent() {
				k.end(closeSilent, fmt.Sprintf("nothing came for %s", k.edge.pace.silence))
				continue
			}
			// A ping waits for its pong, which must not hold up what is queued.
			pings.Go(func() { k.ping(ctx) })
		case <-draining:
			draining, idle = nil, k.session.idle
			var text []byte
			if text, leave = k.protocol.farewell(reconnectDelay()); text != nil {
				err = k.put(ctx, text)
			}
			k.leaveIfIdle(leave)
		case <-idle:
			k.leaveIfIdle(leave)
		}
	}
}

// reconnectDelay spreads the clients of a node that leaves over two seconds, so that they do not all fall on the next.
func reconnectDelay() time.Duration {
	return time.Duration(100+rand.IntN(1900)) * time.Millisecond
}

func (k *socket) leaveIfIdle(code websocket.StatusCode) {
	if k.session.isIdle() {
		k.end(code, "this edge node leaves")
	}
}

func (k *socket) isSilent() bool {
	return time.Since(time.Unix(0, k.lastSign.Load())) > k.edge.pace.silence
}

func (k *socket) ping(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, k.edge.pace.ping)
	defer cancel()
	if err := k.conn.Ping(ctx); err != nil {
		k.edge.log.Debug("no pong", "session", k.session.id.String(), "err", err)
	}
}

// put writes one message. The library closes the connection of a client that takes longer than its time.
func (k *socket) put(ctx context.Context, text []byte) error {
	ctx, cancel := context.WithTimeout(ctx, k.edge.pace.write)
	defer cancel()
	return k.conn.Write(ctx, websocket.MessageText, text)
}

// hangUp closes the connection with the code it ended with. What is queued goes out first, unless it is the queue that
// the client is too slow for. A client that does not answer the close frame is not waited for long.
func (k *socket) hangUp(ctx context.Context) {
	if k.code == 0 {
		return
	}
	grace := time.AfterFunc(k.edge.pace.handshake, k.cut)
	defer grace.Stop()
	for text := k.out.pop(); text != nil && k.code != closeTooSlow; text = k.out.pop() {
		if k.put(ctx, text) != nil {
			return
		}
	}
	if err := k.conn.Close(k.code, k.reason); err != nil {
		k.edge.log.Debug("WebSocket closed without handshake", "session", k.session.id.String(), "code", int(k.code), "err", err)
	}
}

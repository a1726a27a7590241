// Derpprobe drives two stock DERP clients through a relay and fails when anything is not as it is with a stock relay.
//
// It prints one line per step that went well and exits with 0, or says what went wrong and exits with 1.
package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"strings"
	"time"

	"tailscale.com/derp"
	"tailscale.com/derp/derphttp"
	"tailscale.com/net/netmon"
	"tailscale.com/types/key"
)

// deadline bounds every step.
const deadline = 10 * time.Second

func main() {
	url := flag.String("url", "", "the relay, as https://name:port/derp")
	address := flag.String("address", "", "where the relay is, as address:port")
	authority := flag.String("ca", "", "the certificate that signed the relay's, in PEM")
	private := flag.String("key", "", "the first client's private key, as privkey:…; random when empty")
	refused := flag.Bool("refused", false, "succeed when the relay turns the client away")
	duplicate := flag.Bool("duplicates", false, "also check what two connections of one key are told; stock relays tell nothing")
	flood := flag.Duration("flood", 0, "send as fast as the client lets for this long, and print what arrived")
	flag.Parse()

	probe := probe{url: *url, address: *address, authority: *authority, duplicate: *duplicate}
	err := probe.prepare(*private)
	if err == nil {
		switch {
		case *refused:
			err = probe.expectRefusal()
		case *flood > 0:
			err = probe.measure(*flood)
		default:
			err = probe.run()
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "derpprobe:", err)
		os.Exit(1)
	}
}

type probe struct {
	url, address, authority string
	duplicate               bool
	roots                   *x509.CertPool
	first                   key.NodePrivate
}

func (p *probe) prepare(private string) error {
	pem, err := os.ReadFile(p.authority)
	if err != nil {
		return err
	}
	p.roots = x509.NewCertPool()
	if !p.roots.AppendCertsFromPEM(pem) {
		return fmt.Errorf("%s holds no certificate", p.authority)
	}
	p.first = key.NewNode()
	if private != "" {
		return p.first.UnmarshalText([]byte(private))
	}
	return nil
}

// client makes a stock client that has not connected yet.
func (p *probe) client(private key.NodePrivate) (*derphttp.Client, error) {
	quiet := func(string, ...any) {}
	client, err := derphttp.NewClient(private, p.url, quiet, netmon.NewStatic())
	if err != nil {
		return nil, err
	}
	client.TLSConfig = &tls.Config{RootCAs: p.roots}
	client.SetCanAckPings(true)
	client.SetURLDialer(func(ctx context.Context, network, _ string) (net.Conn, error) {
		var dialer net.Dialer
		return dialer.DialContext(ctx, network, p.address)
	})
	return client, nil
}

// inbox receives for one client until it is closed.
type inbox struct {
	messages chan derp.ReceivedMessage
	failed   chan error
}

func (p *probe) connect(private key.NodePrivate) (*derphttp.Client, *inbox, error) {
	client, err := p.client(private)
	if err != nil {
		return nil, nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	defer cancel()
	if err := client.Connect(ctx); err != nil {
		return nil, nil, fmt.Errorf("connect: %w", err)
	}
	in := &inbox{messages: make(chan derp.ReceivedMessage, 4096), failed: make(chan error, 1)}
	go func() {
		for {
			message, err := client.Recv()
			if err != nil {
				in.failed <- err
				return
			}
			if packet, ok := message.(derp.ReceivedPacket); ok {
				// The next Recv reuses the memory.
				packet.Data = bytes.Clone(packet.Data)
				message = packet
			}
			in.messages <- message
		}
	}()
	// A client that starts fast is connected before the relay knows it.
	if _, err := await[derp.ServerInfoMessage](in, "server info"); err != nil {
		return nil, nil, err
	}
	return client, in, nil
}

// await waits for the first message of type T.
func await[T derp.ReceivedMessage](in *inbox, what string) (T, error) {
	var none T
	timeout := time.After(deadline)
	for {
		select {
		case message := <-in.messages:
			if wanted, ok := message.(T); ok {
				return wanted, nil
			}
		case err := <-in.failed:
			return none, fmt.Errorf("%s: the connection ended: %w", what, err)
		case <-timeout:
			return none, fmt.Errorf("%s: nothing came", what)
		}
	}
}

func (p *probe) run() error {
	a, inA, err := p.connect(p.first)
	if err != nil {
		return err
	}
	defer a.Close()
	secret := key.NewNode()
	b, inB, err := p.connect(secret)
	if err != nil {
		return err
	}
	defer b.Close()
	if err := checkFastStart(a); err != nil {
		return err
	}
	fmt.Println("connected", a.ServerPublicKey())

	a.NotePreferred(true)
	for _, size := range []int{1, 1400, derp.MaxPacketSize} {
		data := bytes.Repeat([]byte{0x5a}, size)
		if err := exchange(a, b, inB, data); err != nil {
			return err
		}
		if err := exchange(b, a, inA, data); err != nil {
			return err
		}
	}
	fmt.Println("exchanged")

	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	defer cancel()
	if err := a.Ping(ctx); err != nil {
		return fmt.Errorf("ping: %w", err)
	}
	fmt.Println("pinged")

	// A disco packet to nobody: magic, a key, a nonce and a box of some length.
	stranger := key.NewNode().Public()
	disco := append([]byte("TS💬"), make([]byte, 32+24+16+46)...)
	if err := a.Send(stranger, disco); err != nil {
		return err
	}
	gone, err := await[derp.PeerGoneMessage](inA, "peer gone (not here)")
	if err != nil {
		return err
	}
	if gone.Peer != stranger || gone.Reason != derp.PeerGoneReasonNotHere {
		return fmt.Errorf("peer gone (not here): got %v, %v", gone.Peer, gone.Reason)
	}
	fmt.Println("not here")

	b.Close()
	gone, err = await[derp.PeerGoneMessage](inA, "peer gone (disconnected)")
	if err != nil {
		return err
	}
	if gone.Peer != secret.Public() || gone.Reason != derp.PeerGoneReasonDisconnected {
		return fmt.Errorf("peer gone (disconnected): got %v, %v", gone.Peer, gone.Reason)
	}
	fmt.Println("disconnected")

	if p.duplicate {
		return p.duplicates(a, inA)
	}
	return nil
}

// duplicates connects the first client's key a second time and has both send: they are told, and told again when it is over.
func (p *probe) duplicates(a *derphttp.Client, first *inbox) error {
	second, inSecond, err := p.connect(p.first)
	if err != nil {
		return err
	}
	nobody := key.NewNode().Public()
	for _, client := range []*derphttp.Client{second, a} {
		if err := client.Send(nobody, []byte("data")); err != nil {
			return err
		}
	}
	for _, in := range []*inbox{first, inSecond} {
		health, err := await[derp.HealthMessage](in, "health of duplicates")
		if err != nil {
			return err
		}
		if health.Problem == "" {
			return errors.New("health of duplicates: no problem told")
		}
	}
	second.Close()
	health, err := await[derp.HealthMessage](first, "health after duplicates")
	if err != nil {
		return err
	}
	if health.Problem != "" {
		return fmt.Errorf("health after duplicates: %q", health.Problem)
	}
	fmt.Println("duplicates told")
	return nil
}

// checkFastStart says whether the relay's certificate chain told its key, which is what stock clients start fast by.
func checkFastStart(client *derphttp.Client) error {
	state, ok := client.TLSConnectionState()
	if !ok || state.Version != tls.VersionTLS13 {
		return errors.New("the connection is not TLS 1.3")
	}
	for _, certificate := range state.PeerCertificates {
		if strings.HasPrefix(certificate.Subject.CommonName, "derpkey") {
			return nil
		}
	}
	return errors.New("no certificate tells the relay's key")
}

func exchange(from, to *derphttp.Client, in *inbox, data []byte) error {
	if err := from.Send(to.SelfPublicKey(), data); err != nil {
		return fmt.Errorf("send of %d bytes: %w", len(data), err)
	}
	packet, err := await[derp.ReceivedPacket](in, fmt.Sprintf("packet of %d bytes", len(data)))
	if err != nil {
		return err
	}
	if packet.Source != from.SelfPublicKey() || !bytes.Equal(packet.Data, data) {
		return fmt.Errorf("packet of %d bytes: it came changed", len(data))
	}
	return nil
}

func (p *probe) expectRefusal() error {
	client, err := p.client(p.first)
	if err != nil {
		return err
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	defer cancel()
	if err := client.Connect(ctx); err != nil {
		fmt.Println("refused:", err)
		return nil
	}
	// A fast start sends before it hears: the refusal shows when it reads.
	if _, err := client.Recv(); err != nil {
		fmt.Println("refused:", err)
		return nil
	}
	return errors.New("the relay let the client in")
}

// measure floods one client from another, and prints how much arrived.
func (p *probe) measure(duration time.Duration) error {
	a, _, err := p.connect(p.first)
	if err != nil {
		return err
	}
	defer a.Close()
	b, err := p.client(key.NewNode())
	if err != nil {
		return err
	}
	defer b.Close()
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	defer cancel()
	if err := b.Connect(ctx); err != nil {
		return err
	}
	if message, err := b.Recv(); err != nil {
		return fmt.Errorf("server info: %v, %w", message, err)
	}
	done := make(chan struct{})
	var packets, received int
	go func() {
		defer close(done)
		for {
			message, err := b.Recv()
			if err != nil {
				return
			}
			if packet, ok := message.(derp.ReceivedPacket); ok {
				packets++
				received += len(packet.Data)
			}
		}
	}()
	data := make([]byte, 1400)
	start, sent := time.Now(), 0
	for time.Since(start) < duration {
		if err := a.Send(b.SelfPublicKey(), data); err != nil {
			return err
		}
		sent++
	}
	elapsed := time.Since(start)
	time.Sleep(200 * time.Millisecond)
	b.Close()
	<-done
	fmt.Printf("sent %d packets, received %d, %.0f Mbit/s\n", sent, packets, float64(received)*8/elapsed.Seconds()/1e6)
	return nil
}

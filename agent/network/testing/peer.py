"""One end of the packets of a test: sockets and raw frames of the network namespace it was started in.

Reads one JSON command a line and answers each with one JSON line of the same id, in any order. It decides nothing: what
to send and what to make of the answers is the test's business. Ends with its standard input. Its argument is the uid that
it becomes.
"""

import errno, json, os, resource, select, socket, struct, sys, threading, time

lock = threading.Lock()
flows, servers, sinks, sniffers = {}, {}, {}, {}
kinds = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM}
DONT_FRAGMENT = 2  # IP_PMTUDISC_DO, linux/in.h
OUTGOING = 4  # PACKET_OUTGOING, linux/if_packet.h


def why(error):
    if isinstance(error, TimeoutError):
        return "timeout"
    return errno.errorcode.get(error.errno, "unknown") if isinstance(error, OSError) else repr(error)


def answer(address):
    """What a server says to each message: the address it came from."""
    return (address[0] + "\n").encode()


def serve_connection(conn, address, server):
    server["client"] = conn
    with conn:
        try:
            while conn.recv(65536):
                conn.sendall(answer(address))
        except OSError:
            pass


def serve(server, proto):
    sock = server["socket"]
    while True:
        try:
            if proto == "tcp":
                conn, address = sock.accept()
                threading.Thread(target=serve_connection, args=(conn, address, server), daemon=True).start()
            else:
                data, address = sock.recvfrom(65536)
                server["client"] = address
                sock.sendto(answer(address), address)
        except OSError:
            return


def listen(proto, port, address):
    sock = socket.socket(socket.AF_INET, kinds[proto])
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind((address, port))
    if proto == "tcp":
        sock.listen(4096)
    server = {"socket": sock, "client": None}
    servers.setdefault((proto, port), []).append(server)
    threading.Thread(target=serve, args=(server, proto), daemon=True).start()
    return {}


def tell(proto, port):
    """Have a server say something to its last client unasked."""
    server = next(each for each in servers[proto, port] if each["client"])
    if proto == "tcp":
        server["client"].sendall(b"unasked\n")
    else:
        server["socket"].sendto(b"unasked\n", server["client"])
    return {}


def exchange(sock, timeout, size):
    sock.settimeout(timeout)
    sock.send(b"x" * size)
    return {"heard": sock.recv(65536).decode().strip()}


def open_flow(flow, proto, to, port, timeout, size=1, source_port=0, dont_fragment=False):
    sock = socket.socket(socket.AF_INET, kinds[proto])
    flows[flow] = sock
    if dont_fragment:
        sock.setsockopt(socket.IPPROTO_IP, 10, DONT_FRAGMENT)  # IP_MTU_DISCOVER
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if source_port:
        sock.bind(("0.0.0.0", source_port))
    sock.settimeout(timeout)
    sock.connect((to, port))
    return exchange(sock, timeout, size)


def ask(flow, timeout, size=1):
    sock = flows[flow]
    return exchange(sock, timeout, size)


def hear(flow, timeout):
    flows[flow].settimeout(timeout)
    return {"heard": flows[flow].recv(65536).decode().strip()}


def close(flow):
    flows.pop(flow).close()
    return {}


def query(proto, to, port, data, timeout):
    """One message there, and the one that comes back."""
    with socket.socket(socket.AF_INET, kinds[proto]) as sock:
        sock.settimeout(timeout)
        sock.connect((to, port))
        sock.sendall(bytes.fromhex(data))
        received = sock.recv(65536)
        if not received:
            raise ConnectionResetError(errno.ECONNRESET, "closed")
        return {"data": received.hex()}


def respond(port, data, address):
    """Answer each datagram at a port with `data` behind its own first two bytes, as a name server would."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind((address, port))
    servers["respond", port] = server = {"asked": []}

    def loop():
        while True:
            question, client = sock.recvfrom(65536)
            server["asked"].append(question.hex())
            sock.sendto(question[:2] + bytes.fromhex(data), client)

    threading.Thread(target=loop, daemon=True).start()
    return {}


def asked(port):
    return {"asked": servers["respond", port]["asked"]}


def checksum(data):
    total = sum(struct.unpack("!%dH" % (len(data) // 2), data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def ping(to, timeout):
    ident, deadline = os.urandom(2), time.monotonic() + timeout
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as sock:
        head = struct.pack("!BBH", 8, 0, 0) + ident + b"\0\1"
        sock.sendto(head[:2] + struct.pack("!H", checksum(head)) + head[4:], (to, 0))
        while True:
            sock.settimeout(max(deadline - time.monotonic(), 0.001))
            packet, address = sock.recvfrom(65536)
            if packet[20] == 0 and packet[24:26] == ident:
                return {"heard": address[0]}


def raw_socket(device):
    sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))  # ETH_P_ALL
    sock.bind((device, 0))
    return sock


def send(frames, device="eth0"):
    with raw_socket(device) as sock:
        for frame in frames:
            sock.send(bytes.fromhex(frame))
    return {}


def sniff(device="eth0"):
    """Keep what arrives at a device from now on."""
    sock = raw_socket(device)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
    sniffers[device] = {"socket": sock, "frames": []}
    return {}


def sniffed(wanted, timeout, device="eth0"):
    """All that arrived until a frame held the bytes `wanted`, it included; an error when none did in time."""
    sniffer, deadline = sniffers[device], time.monotonic() + timeout
    while True:
        left = deadline - time.monotonic()
        if left <= 0 or not select.select([sniffer["socket"]], [], [], left)[0]:
            return {"error": "timeout", "frames": sniffer["frames"]}
        frame, address = sniffer["socket"].recvfrom(65536)
        if address[2] == OUTGOING:
            continue
        sniffer["frames"].append(frame.hex())
        if bytes.fromhex(wanted) in frame:
            return {"frames": sniffer["frames"]}


def flood(to, port, count):
    """Send a datagram from so many ports of this end, a few at a time, and keep them; tells how many were answered."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (count + 100, count + 100))
    mine, answered = [], 0
    while len(mine) < count:
        poll, batch = select.poll(), min(200, count - len(mine))
        for _ in range(batch):
            sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            sock.connect((to, port))
            sock.send(b"x")
            poll.register(sock, select.POLLIN)
            mine.append(sock)
        waiting = batch
        while waiting and (ready := poll.poll(300)):
            for number, _ in ready:
                poll.unregister(number)
            waiting -= len(ready)
            answered += len(ready)
    flows["flood"] = mine
    return {"answered": answered}


def sink(port):
    """Count the bytes that one connection brings."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("0.0.0.0", port))
    listener.listen()
    sinks[port] = result = {"done": threading.Event()}

    def loop():
        conn, _ = listener.accept()
        start, total = time.monotonic(), 0
        while data := conn.recv(1 << 20):
            total += len(data)
        result["bits_per_second"] = total * 8 / (time.monotonic() - start)
        listener.close()
        result["done"].set()

    threading.Thread(target=loop, daemon=True).start()
    return {}


def pump(to, port, seconds):
    """Send as much as goes through for so long."""
    with socket.create_connection((to, port), 5) as sock:
        block, deadline = b"x" * 65536, time.monotonic() + seconds
        while time.monotonic() < deadline:
            sock.sendall(block)
    return {}


def sunk(port, timeout):
    if not sinks[port]["done"].wait(timeout):
        raise TimeoutError()
    return {"bits_per_second": sinks[port]["bits_per_second"]}


def round_trips(to, port, count):
    """Seconds of each of so many exchanges of one byte and its answer, one after the other on one connection."""
    with socket.create_connection((to, port), 5) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        seconds = []
        for _ in range(count):
            start = time.perf_counter()
            exchange(sock, 5, 1)
            seconds.append(time.perf_counter() - start)
    return {"seconds": seconds}


def segment_size(flow):
    """What a connection puts into one segment at most (TCP_MAXSEG, tcp(7))."""
    return {"bytes": flows[flow].getsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG)}


commands = {each.__name__: each for each in (
    listen, tell, open_flow, ask, hear, close, query, respond, asked, ping, send, sniff, sniffed, flood, sink, pump,
    sunk, round_trips, segment_size)}


def run(id, command, arguments):
    try:
        result = commands[command](**arguments)
    except (OSError, KeyError) as error:
        result = {"error": why(error)}
    with lock:
        print(json.dumps({"id": id, **result}), flush=True)


uid = int(sys.argv[1])
if uid != 0:
    os.setgroups([])
    os.setgid(uid)
    os.setuid(uid)

for line in sys.stdin:
    request = json.loads(line)
    threading.Thread(target=run, args=(request["id"], request["command"], request["arguments"]), daemon=True).start()

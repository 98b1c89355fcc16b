import LinuxSystem
import Machine
import TestSupport
import Testing

@Suite("The small Linux on a bridge", .needsKVM, .needsSmallLinux, .needsTAP, .serialized)
struct SmallLinuxBridgeTests {
  /// Serves a directory on port 80, and says what sum has what comes to port 9.
  private static let services = """
    import functools, hashlib, http.server, socket, sys, threading
    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *a): pass
    files = http.server.ThreadingHTTPServer(
        ("192.0.2.1", 80), functools.partial(Handler, directory=sys.argv[1]))
    threading.Thread(target=files.serve_forever, daemon=True).start()
    s = socket.create_server(("192.0.2.1", 9))
    print("ready", flush=True)
    c, _ = s.accept()
    h = hashlib.md5()
    while d := c.recv(65536): h.update(d)
    print(h.hexdigest(), "came", flush=True)
    """

  private struct Seen: Sendable {
    var sum = ""
    var expected = ""
    var sent = ""
    var isAlive = false
  }

  @Test(
    "is reached by the host, and fetches and sends files, until its interface goes away",
    .needs("python3", "busybox"))
  func bridge() throws {
    // With the network that the others have.
    try SmallLinux.prepare()
    let seen = try OwnNetwork.run {
      var seen = Seen()
      let files = try TemporaryDirectory()
      let contents = (0..<400_000).map { UInt8(truncatingIfNeeded: $0 &* 13 ^ $0 >> 8) }
      _ = try files.write(contents, to: "file")
      try files.succeed(
        "ip link add br0 type bridge forward_delay 0 && ip tuntap add tap0 mode tap"
          + " && ip link set tap0 master br0 && ip addr add 192.0.2.1/24 dev br0"
          + " && ip link set tap0 up && ip link set br0 up")
      let linux = try SmallLinux(network: .tap("tap0"))
      let services = try LoggedProcess(
        "/usr/bin/env", ["python3", "-c", Self.services, files.path])
      guard services.says("ready") else { throw NeverCame(what: services.text) }
      _ = try linux.run("ip link set eth0 up; ip addr add 192.0.2.2/24 dev eth0")
      _ = try linux.run("ping -c 3 -w 60 192.0.2.1")
      try files.succeed("busybox ping -c 3 -w 60 192.0.2.2")
      seen.sum = try linux.run(
        "wget -q -O /tmp/file http://192.0.2.1/file && md5sum /tmp/file | cut -c1-32")
      seen.expected = try files.run("md5sum file | cut -c1-32").output
      _ = try linux.run("nc 192.0.2.1 9 </tmp/file")
      guard services.says("came") else { throw NeverCame(what: services.text) }
      seen.sent = services.text
      try files.succeed("ip link del tap0")
      _ = try linux.run("cd /sys/class/net/eth0; while [ $(cat carrier) != 0 ]; do :; done")
      seen.isAlive =
        try linux.run("ping -c 1 -w 1 192.0.2.1 >/dev/null 2>&1; echo goes on") == "goes on\n"
      return seen
    }
    #expect(seen.sum == seen.expected && seen.sum.count == 33)
    #expect(seen.sent.contains(seen.expected.dropLast()), "\(seen.sent)")
    #expect(seen.isAlive)
  }
}

import DeviceModel
import LinuxSystem
import Machine
import TestSupport
import Testing

@Suite("What a TAP interface leaves to a guest", .needsTAP, .serialized)
struct TAPOffloadTests {
  private static let host: [UInt8] = [192, 0, 2, 1]
  private static let guest: [UInt8] = [192, 0, 2, 2]
  private static let guestChecksum: UInt64 = 1 << 1
  private static let largestOnWire = 1514
  /// 30,000 bytes.
  private static let bulk = (0..<30_000).map { UInt8(truncatingIfNeeded: $0 &* 31 ^ $0 >> 7) }

  /// Sends as much for every byte that comes, on each connection.
  private static let server = """
    import socket, threading
    s = socket.create_server(("192.0.2.1", 7))
    bulk = bytes((i * 31 ^ i >> 7) & 255 for i in range(30000))
    def serve(c):
        while c.recv(1): c.sendall(bulk)
    print("ready", flush=True)
    while True: threading.Thread(target=serve, args=[s.accept()[0]], daemon=True).start()
    """

  private static func start() throws -> LoggedProcess {
    let server = try LoggedProcess("/usr/bin/env", ["python3", "-c", Self.server])
    guard server.says("ready") else { throw NeverCame(what: server.text) }
    return server
  }

  /// What frames the data of a connection came in.
  private struct Fetched: Sendable {
    var longest = 0
    var largeHeader: VirtioNetHeader?
    var areHeadersEmpty = true
    var isRight = false
    var pairs: Set<Int> = []
  }

  private static func connect(
    _ driver: NetworkDriver, port: UInt16, pair: Int = 0
  ) throws -> TestStream {
    let hardware = try driver.resolve(host, from: guest)
    var stream = TestStream(
      from: (NetworkDriver.address, guest, port), to: (hardware, host, 7))
    driver.send(stream.opening(), pair: pair)
    stream.take(try driver.receive(pair: nil) { stream.isAnswer($0) })
    return stream
  }

  /// Asks for the data, and acknowledges every frame of it.
  private static func fetch(
    _ driver: NetworkDriver, _ stream: inout TestStream, pair: Int = 0
  ) throws -> Fetched {
    var fetched = Fetched()
    let before = stream.received.count
    driver.send(stream.segment([1]), pair: pair)
    while stream.received.count < before + bulk.count {
      let frame = try driver.receive(pair: nil) { stream.isAnswer($0) }
      if frame.bytes.count > fetched.longest, frame.header.segmentation != .whole {
        fetched.largeHeader = frame.header
      }
      fetched.longest = max(fetched.longest, frame.bytes.count)
      fetched.areHeadersEmpty = fetched.areHeadersEmpty && frame.header == VirtioNetHeader()
      if frame.bytes.count > 54 { fetched.pairs.insert(frame.queue) }
      stream.take(frame)
      driver.send(stream.segment([]), pair: pair)
    }
    fetched.isRight = Array(stream.received[before...]) == bulk
    return fetched
  }

  private static let up =
    "ip addr add 192.0.2.1/24 dev tap0 && ip link set tap0 up && ip link set lo up"

  private func expectLarge(_ fetched: Fetched?, _ when: Comment) {
    #expect(fetched?.isRight == true, when)
    #expect((fetched?.longest ?? 0) > Self.largestOnWire, when)
    let header = fetched?.largeHeader
    #expect(header?.segmentation == .tcp4 && header?.needsChecksum == true, when)
    #expect(header?.segmentSize == 1460 && header?.checksumStart == 34, when)
  }

  private func expectCut(_ fetched: Fetched?, _ when: Comment) {
    #expect(fetched?.isRight == true, when)
    #expect(fetched?.longest == Self.largestOnWire, when)
    #expect(fetched?.largeHeader == nil, when)
  }

  @Test(
    "is a large TCP segment in one piece with its header, while the driver takes such",
    .needs("python3"))
  func segments() throws {
    let seen = try OwnNetwork.run {
      var seen: [Fetched] = []
      let files = try TemporaryDirectory()
      let driver = try NetworkDriver(tap: "tap0", features: NetworkDriver.Feature.large)
      defer { driver.close() }
      try files.succeed(Self.up)
      let server = try Self.start()
      var stream = try Self.connect(driver, port: 40_000)
      seen.append(try Self.fetch(driver, &stream))
      driver.restart(features: NetworkDriver.Feature.plain)
      seen.append(try Self.fetch(driver, &stream))
      driver.restart(features: NetworkDriver.Feature.large)
      seen.append(try Self.fetch(driver, &stream))
      try driver.wantOffloads(Self.guestChecksum)
      seen.append(try Self.fetch(driver, &stream))
      try driver.wantOffloads(0)
      seen.append(try Self.fetch(driver, &stream))
      return withExtendedLifetime(server) { seen }
    }
    try #require(seen.count == 5)
    expectLarge(seen[0], "agreed upon")
    expectCut(seen[1], "not agreed upon after a reset")
    #expect(seen[1].areHeadersEmpty)
    expectLarge(seen[2], "agreed upon again")
    expectCut(seen[3], "turned off, but for checksums")
    #expect(!seen[3].areHeadersEmpty)
    expectCut(seen[4], "turned off")
    #expect(seen[4].areHeadersEmpty)
  }

  @Test(
    "is set again where a restored machine goes on, and by a machine after another",
    .needs("python3"))
  func restored() throws {
    let seen = try OwnNetwork.run {
      var seen: [Fetched] = []
      let files = try TemporaryDirectory()
      try files.succeed("ip tuntap add tap0 mode tap")
      let driver = try NetworkDriver(tap: "other", features: NetworkDriver.Feature.large)
      try driver.move(to: "tap0")
      try files.succeed(Self.up)
      let server = try Self.start()
      var stream = try Self.connect(driver, port: 40_001)
      seen.append(try Self.fetch(driver, &stream))
      // The interface stays, with what its former user wanted.
      try driver.move(to: "other")
      driver.close()
      let next = try NetworkDriver(tap: "tap0")
      defer { next.close() }
      var another = try Self.connect(next, port: 40_002)
      seen.append(try Self.fetch(next, &another))
      return withExtendedLifetime(server) { seen }
    }
    try #require(seen.count == 2)
    expectLarge(seen[0], "restored on it")
    expectCut(seen[1], "without having agreed")
    #expect(seen[1].areHeadersEmpty)
  }

  @Test(
    "comes to as many queues as the driver uses, each flow where it was sent",
    .needs("python3"))
  func queues() throws {
    struct Seen: Sendable {
      var counts: [Int] = []
      var fetched: [Fetched] = []
      var isUpWithoutInterface = true
    }
    let seen = try OwnNetwork.run {
      var seen = Seen()
      func count() throws { seen.counts.append(try TAPInterface.queueCount(of: "tap0")) }
      let files = try TemporaryDirectory()
      let driver = try NetworkDriver(
        tap: "tap0", queues: 2, features: NetworkDriver.Feature.large)
      defer { driver.close() }
      try files.succeed(Self.up)
      let server = try Self.start()
      try count()
      try driver.usePairs(2)
      try count()
      var streams = try (0..<2).map { pair in
        try Self.connect(driver, port: 41_000 + UInt16(pair), pair: pair)
      }
      for pair in [0, 1, 1, 0] {
        seen.fetched.append(try Self.fetch(driver, &streams[pair], pair: pair))
      }
      // The other way round: flows follow.
      for pair in 0..<2 {
        driver.send(streams[pair].segment([]), pair: 1 - pair)
        seen.fetched.append(try Self.fetch(driver, &streams[pair], pair: 1 - pair))
      }
      try driver.move(to: "tap1", queues: 2)
      seen.counts.append(try TAPInterface.queueCount(of: "tap1"))
      try driver.move(to: "tap0", queues: 2)
      try files.succeed(Self.up)
      try driver.usePairs(1)
      try count()
      var last = try Self.connect(driver, port: 42_000)
      seen.fetched.append(try Self.fetch(driver, &last))
      try driver.usePairs(2)
      driver.restart(features: NetworkDriver.Feature.plain)
      try count()
      try files.succeed("ip link del tap0")
      try eventually("the link to go down") { !driver.isLinkUp }
      seen.isUpWithoutInterface = driver.isLinkUp
      return withExtendedLifetime(server) { seen }
    }
    #expect(seen.counts == [1, 2, 2, 1, 1])
    #expect(seen.fetched.map(\.pairs) == [[0], [1], [1], [0], [1], [0], [0]])
    #expect(seen.fetched.allSatisfy { $0.isRight })
    #expect(!seen.isUpWithoutInterface)
  }

  @Test("does not depend on how many queues its interface was made with")
  func made() throws {
    struct Seen: Sendable {
      var answers: [Bool] = []
      var counts: [Int] = []
      var error = ""
    }
    let seen = try OwnNetwork.run {
      var seen = Seen()
      let files = try TemporaryDirectory()
      for (options, queues) in [("", 2), ("multi_queue", 1), ("multi_queue", 2)] {
        try files.succeed("ip tuntap add tap0 mode tap \(options)")
        let driver = try NetworkDriver(tap: "tap0", queues: queues)
        try files.succeed(Self.up)
        try driver.usePairs(2)
        let address = try driver.resolve(Self.host, from: Self.guest)
        seen.answers.append(address.count == 6)
        seen.counts.append(try TAPInterface.queueCount(of: "tap0"))
        if queues == 1 {
          // With room for more queues, which are not another machine's.
          do {
            _ = try NetworkLink.open(.init(.tap("tap0"), queues: 2))
          } catch {
            seen.error = "\(error)"
          }
        }
        driver.close()
        try files.succeed("ip link del tap0")
      }
      return seen
    }
    #expect(seen.answers == [true, true, true])
    #expect(seen.counts == [1, 1, 2])
    #expect(seen.error.contains("busy") && seen.error.contains("give each card an interface"))
  }
}

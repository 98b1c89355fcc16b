import Glibc
import LinuxSystem
import Testing

@Suite("Linux system calls")
struct LinuxSystemTests {
  @Test("a packet arrives whole, with the descriptors that were sent")
  func descriptorPassing() throws {
    let (left, right) = try UnixSocket.pair(kind: .packets)
    let memory = try SharedMemory(name: "test", size: 8192)
    let mine = try memory.map()
    mine.bytes[5000] = 42
    try left.send([1, 2, 3], descriptors: [memory.descriptor])
    try left.send([4])
    let first = try right.receive()
    #expect(first.bytes == [1, 2, 3])
    let received = try #require(first.descriptors.first)
    let theirs = try MemoryMapping(received, offset: 4096, size: 4096, access: .shared)
    #expect(theirs.bytes[904] == 42)
    #expect(try right.receive().bytes == [4])
    left.shutDown()
    #expect(try right.receive().isEnd)
  }

  @Test("many ranges of memory are populated at once, to be read or to be written")
  func populating() throws {
    let page = 4096
    let count = 5000
    let memory = try SharedMemory(name: "test", size: count * page)
    try memory.map().withBytes { _ = $0.initializeMemory(as: UInt8.self, repeating: 7) }
    let mapping = try MemoryMapping(
      memory.descriptor, offset: 0, size: memory.size, access: .privateCopy)
    // More than one call takes.
    let ranges = stride(from: 0, to: count, by: 2).map { $0 * page..<($0 + 1) * page }
    #expect(ranges.count > 2048)
    try mapping.populate(Array(ranges.dropFirst(32)))
    #expect(try mapping.copiedPages().allSatisfy { $0 == 0 })
    let present = try mapping.presentPages()
    let isPresent = { (page: Int) in present[page / 64] >> UInt64(page % 64) & 1 == 1 }
    #expect(!isPresent(0) && (64..<count).allSatisfy { $0 % 2 == 1 || isPresent($0) })
    try mapping.populate(Array(ranges.prefix(2)), writable: true)
    #expect(try mapping.copiedPages().first == 0b101)
    #expect(mapping.withBytes { $0[2 * page] } == 7)
    try mapping.populate([])
  }

  @Test("a process that lets go of its code finds it again")
  func programText() throws {
    func mapped() throws -> Int {
      let text = String(decoding: try Files.read("/proc/self/smaps_rollup"), as: UTF8.self)
      let line = text.split(separator: "\n").first { $0.hasPrefix("Pss_File:") }
      let words = try #require(line).split(separator: " ")
      return try #require(words.count > 1 ? Int(words[1]) : nil)
    }
    let before = try mapped()
    #expect(ProgramText.release() > 1 << 20)
    #expect(try mapped() < before)
    #expect("\([3, 1, 2].sorted())" == "[1, 2, 3]")
  }

  @Test("a packet larger than the receiver's buffer is reported as truncated")
  func truncation() throws {
    let (left, right) = try UnixSocket.pair(kind: .packets)
    try left.send([1, 2, 3])
    #expect(try right.receive(capacity: 2).isTruncated)
  }

  @Test("receiving without waiting says that nothing is there")
  func wouldBlock() throws {
    let (_, right) = try UnixSocket.pair(kind: .packets)
    let pair = try UnixSocket.pair(kind: .packets)
    let error = #expect(throws: SystemError.self) { try pair.0.receive(blocking: false) }
    #expect(error?.kind == .wouldBlock)
    #expect(try right.receive(blocking: false).isEnd)
  }

  @Test("output that nobody takes is refused at once, and the open file goes on blocking")
  func impatience() throws {
    var ends: [Int32] = [-1, -1]
    try #require(pipe(&ends) == 0)
    let (reading, writing) = (FileDescriptor(owning: ends[0]), FileDescriptor(owning: ends[1]))
    let (left, right) = try UnixSocket.pair(kind: .stream)
    for (end, other) in [(writing, reading), (left.descriptor, right.descriptor)] {
      let output = ImpatientOutput(end)
      let block = [UInt8](repeating: 7, count: 4096)
      var taken = 0
      while case let count = try output.write(block), count > 0 { taken += count }
      #expect(taken > 0)
      #expect(fcntl(end.raw, F_GETFL) & O_NONBLOCK == 0)
      var got = 0
      while got < taken { got += try other.read(upTo: taken - got).count }
      #expect(try output.write([1, 2]) == 2)
    }
  }

  @Test("output to a pipe whose reader went throws, and a file takes everything")
  func otherEnds() throws {
    var ends: [Int32] = [-1, -1]
    try #require(pipe(&ends) == 0)
    Signal.pipe.ignore()
    let output = ImpatientOutput(FileDescriptor(owning: ends[1]))
    close(ends[0])
    let error = #expect(throws: SystemError.self) { try output.write([1]) }
    #expect(error?.kind == .disconnected)
    let memory = try SharedMemory(name: "test", size: 4096)
    #expect(try ImpatientOutput(memory.descriptor).write([1, 2, 3]) == 3)
  }

  @Test("shared memory cannot change its size")
  func sealedMemory() throws {
    let memory = try SharedMemory(name: "test", size: 4096)
    #expect(throws: SystemError.self) { try memory.descriptor.setSize(8192) }
  }

  @Test("a poller reports an event's token, a timer's deadline passes")
  func readiness() throws {
    let poller = try Poller()
    let event = try EventDescriptor()
    let timer = try TimerDescriptor()
    try poller.add(event.descriptor, token: 7)
    try poller.add(timer.descriptor, token: 8)
    #expect(try poller.wait(milliseconds: 0).isEmpty)
    event.signal()
    #expect(try poller.wait().map(\.token) == [7])
    #expect(event.drain())
    #expect(!event.drain())
    let deadline = MonotonicClock.now + 2_000_000
    try timer.arm(at: deadline)
    #expect(try poller.wait().map(\.token) == [8])
    #expect(MonotonicClock.now >= deadline)
  }

  @Test("a program gets exactly the descriptors it was given")
  func spawn() throws {
    let (ours, theirs) = try UnixSocket.pair(kind: .stream)
    var request = ChildProcess.Request(
      "/bin/sh", ["-c", "echo $GREETING >&7; ls /proc/self/fd | tr '\\n' ' ' >&7; exit 3"])
    request.environment = ["GREETING": "hello", "PATH": "/usr/bin:/bin"]
    request.descriptors = [7: theirs.descriptor]
    let child = try ChildProcess(request)
    #expect(child.handle.startTime > 0)
    #expect(try child.wait() == .exited(3))
    #expect(!child.handle.isRunning)
    let output = String(decoding: try ours.receive().bytes, as: UTF8.self)
    #expect(output.hasPrefix("hello\n"))
    let numbers = Set(output.dropFirst(6).split(separator: " ").compactMap { Int($0) })
    #expect(numbers.isSubset(of: [0, 1, 2, 3, 7]), "3 is ls's own directory")
  }

  @Test("a program that is not there cannot be started, and says so")
  func spawnMissing() {
    let error = #expect(throws: SystemError.self) {
      try ChildProcess(ChildProcess.Request("/nonexistent/program"))
    }
    #expect(error?.kind == .notFound)
    #expect(error?.context.contains("/nonexistent/program") == true)
  }

  @Test("a killed child says which signal ended it; its handle can be found again by start time")
  func adoption() throws {
    let child = try ChildProcess(ChildProcess.Request("/bin/sleep", ["1000"]))
    let adopted = try ProcessHandle(
      identifier: child.handle.identifier, startTime: child.handle.startTime)
    #expect(adopted.isRunning)
    #expect(throws: SystemError.self) {
      try ProcessHandle(identifier: child.handle.identifier, startTime: 1)
    }
    try adopted.send(.kill)
    #expect(try child.wait() == .signalled(.kill))
    #expect(!adopted.isRunning)
  }

  @Test("a file is replaced as a whole and can be locked once")
  func files() throws {
    let (identifier, _) = ProcessHandle.current
    let path = "/tmp/carrel-linux-system-\(identifier)"
    defer { try? Files.remove(path) }
    try Files.replace(path, with: Array("old".utf8))
    try Files.replace(path, with: Array("new!".utf8))
    #expect(try Files.read(path) == Array("new!".utf8))
    let first = try FileDescriptor.open(path, .writable)
    let second = try FileDescriptor.open(path, .writable)
    try first.lock(exclusive: true)
    let error = #expect(throws: SystemError.self) { try second.lock(exclusive: true) }
    #expect(error?.kind == .wouldBlock)
    try first.unlock()
    try second.lock(exclusive: true)
  }

  @Test("a listening path is not taken twice, an abandoned one is taken over")
  func listener() throws {
    let (identifier, _) = ProcessHandle.current
    let path = "/tmp/carrel-listener-\(identifier)"
    do {
      let listener = try UnixListener(at: path, kind: .packets)
      let client = try UnixSocket.connect(to: path, kind: .packets)
      let server = try listener.accept()
      try client.send([9])
      #expect(try server.receive().bytes == [9])
      #expect(try server.peerCredentials().process == identifier)
      #expect(throws: SystemError.self) { try UnixListener(at: path, kind: .packets) }
    }
    #expect(!Files.exists(path))
  }

  @Test("threads hand a value over under a lock")
  func threads() throws {
    let box = Guarded(0)
    let thread = try Thread(name: "test") { box.change { $0 = 5 } }
    #expect(box.wait(until: { $0 != 0 }) { $0 } == 5)
    thread.join()
  }
}

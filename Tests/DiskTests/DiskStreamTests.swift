import DeviceModel
import Disk
import LinuxSystem
import Synchronization
import TestSupport
import Testing

@Suite("Disks that take in what they are based on", .needs("qemu-img", "qemu-io"))
struct DiskStreamTests {
  private static let size = 6 << 20

  // SAFETY: what changes, changes under `lock`.
  /// A disk of four images that others wrote: raw "base", "a", "b" and "top".
  private final class Bench: @unchecked Sendable {
    let files: ImageBench
    let lock = Lock()
    let disk: AttachedDisk
    /// What the disk reads as.
    private(set) var model: [UInt8]
    private var underWay = 0

    init(seed: UInt64, clusterSize: Int) throws {
      files = try ImageBench()
      let size = DiskStreamTests.size
      var random = SeededGenerator(seed: seed)
      try files.directory.write([UInt8].random(size, using: &random), to: "base")
      var below = ("base", ImageFormat.raw)
      for (name, bits) in [("a", clusterSize), ("b", 1 << 16), ("top", clusterSize)] {
        var options = Qcow2Options(byteCount: UInt64(size))
        options.clusterSize = bits
        options.backing = .init(below.0, below.1)
        try files.create(name, options)
        var commands: [String] = []
        for _ in 0..<8 {
          let place = Int.random(in: 0..<size / 512 - 300, using: &random) * 512
          let count = Int.random(in: 1...300, using: &random) * 512
          let kind = Int.random(in: 0..<4, using: &random)
          commands.append(
            kind == 0
              ? "write -z \(place) \(count)"
              : "write -P \(Int.random(in: 0...255, using: &random)) \(place) \(count)")
        }
        let words = commands.map { "-c '\($0)'" }.joined(separator: " ")
        try files.run("qemu-io -f qcow2 \(words) \(name)")
        below = (name, .qcow2)
      }
      model = try files.contents("top")
      let lock = lock
      let deviceLock: RawImage.DeviceLock = { body in
        lock.withLock {
          body()
          lock.wakeAll()
        }
      }
      disk = AttachedDisk(
        try Qcow2Disk(
          path: files.path("top"), isReadOnly: false, BackingPolicy(), deviceLock: deviceLock),
        deviceLock: deviceLock)
    }

    func write(_ bytes: [UInt8], at offset: Int) {
      lock.withLock {
        model.replaceSubrange(offset..<offset + bytes.count, with: bytes)
        underWay += 1
        disk.write(offset: UInt64(offset), bytes: bytes) { [unowned self] _ in underWay -= 1 }
      }
    }

    func awaitWrites() { lock.withLock { while underWay > 0 { lock.wait() } } }

    func contents() throws -> [UInt8] {
      var answer: Result<[UInt8], BlockError>?
      lock.withLock {
        disk.read(offset: 0, count: DiskStreamTests.size) { answer = $0 }
        while answer == nil { lock.wait() }
      }
      return try #require(answer).get()
    }

    func carryOut(_ stream: DiskStream) throws {
      try stream.hold()
      lock.withLock { stream.switchOver() }
      stream.finish()
    }
  }

  private static let bases: [String?] = ["base", "a", nil]

  @Test(
    "while a guest writes, and read the same without what was under them", arguments: bases,
    [512, 65536])
  func streams(base: String?, clusterSize: Int) throws {
    let bench = try Bench(seed: UInt64(clusterSize), clusterSize: clusterSize)
    let files = bench.files
    let stream = try DiskStream(of: bench.disk, onto: base.map(files.path))
    let isOver = Atomic(false)
    var random = SeededGenerator(seed: 9)
    let places = (0..<3000).map { _ in
      (
        Int.random(in: 0..<Self.size / 512 - 16, using: &random),
        UInt8(truncatingIfNeeded: random.next())
      )
    }
    let writer = try Thread(name: "guest") {
      for (place, value) in places where !isOver.load(ordering: .relaxed) {
        bench.write([UInt8](repeating: value, count: 4096), at: place * 512)
        // Of two that overlap, either may be the last one.
        bench.awaitWrites()
      }
    }
    var copied = 0
    while case .copied(let count) = try stream.copy() { copied += count }
    #expect(copied > 0 && stream.offset == UInt64(Self.size))
    try stream.prepare()
    try bench.carryOut(stream)
    isOver.store(true, ordering: .relaxed)
    writer.join()
    bench.write([UInt8](repeating: 77, count: 4096), at: 0)
    bench.awaitWrites()
    #expect(try bench.contents().difference(bench.model) == nil)
    let names = bench.disk.layers.map { $0.path.split(separator: "/").last ?? "" }
    #expect(names == ["top"] + (base == "a" ? ["a", "base"] : base == "base" ? ["base"] : []))
    // What it does without is anybody's; what it needs is not.
    for (name, isNeeded) in [("b", false), ("a", base == "a"), ("base", base != nil)] {
      let file = try FileDescriptor.open(files.path(name), .writable)
      #expect((try? file.lock(exclusive: true)) == nil ? isNeeded : !isNeeded, "\(name)")
    }
    try files.run("rm b" + (base == "a" ? "" : " a") + (base == nil ? " base" : ""))
    bench.disk.close()
    try files.check("top")
    #expect(try files.contents("top").difference(bench.model) == nil)
    let information = try files.run("qemu-img info top")
    #expect(information.contains("backing file: \(base ?? "-")") == (base != nil), "\(information)")
  }

  @Test("stopped at any time, the disk reads the same, and can be asked for it again")
  func abandoned() throws {
    let bench = try Bench(seed: 4, clusterSize: 65536)
    let files = bench.files
    for turn in 0..<6 {
      let stream = try DiskStream(of: bench.disk, onto: files.path("base"))
      for _ in 0..<turn { _ = try stream.copy() }
      bench.write([UInt8](repeating: UInt8(turn), count: 70000 / 512 * 512), at: turn * 512_000)
      if turn % 2 == 1 {
        while case .copied = try stream.copy() {}
        try stream.hold()
        stream.abandon()
      }
      bench.awaitWrites()
      #expect(try bench.contents().difference(bench.model) == nil)
    }
    try bench.disk.synchronize()
    // As a kill leaves it, whatever it is based on by now.
    try files.run("cp top copy")
    #expect(try files.contents(ofOurs: "copy").difference(bench.model) == nil)
    bench.disk.close()
    #expect(try files.contents("copy").difference(bench.model) == nil)
  }

  @Test("what cannot be is refused")
  func refused() throws {
    let bench = try Bench(seed: 5, clusterSize: 65536)
    let files = bench.files
    func kind(_ base: String?) -> DiskError.Kind? {
      do {
        _ = try DiskStream(of: bench.disk, onto: base)
        return nil
      } catch {
        return error.kind
      }
    }
    #expect(kind(files.path("b")) == .unsupported)
    #expect(kind(files.path("top")) == .notFound)
    #expect(kind(files.path("none")) == .notFound)
    // A link leads to the same.
    try files.run("ln -s a link")
    #expect(kind(files.path("link")) == nil)
    // Of a disk that went over to an overlay there is nothing to take in any more.
    let stream = try DiskStream(of: bench.disk, onto: files.path("a"))
    while case .copied = try stream.copy() {}
    let late = try DiskStream(of: bench.disk, onto: files.path("a"))
    let overlay = try DiskOverlay(of: bench.disk, at: files.path("over"))
    try overlay.hold()
    #expect(try late.copy() == .held)
    try bench.lock.withLock {
      try overlay.share()
      overlay.switchOver()
    }
    overlay.finish()
    #expect(throws: DiskError.self) { try late.copy() }
    #expect(throws: DiskError.self) { try stream.hold() }
    bench.disk.close()
  }
}

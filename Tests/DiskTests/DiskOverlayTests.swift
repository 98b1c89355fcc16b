import DeviceModel
import Disk
import LinuxSystem
import TestSupport
import Testing

@Suite("Disks that go over to overlays, without a machine")
struct DiskOverlayTests {
  /// A disk and its device lock.
  private final class Bench {
    let files: ImageBench
    let lock = Lock()
    let disk: AttachedDisk
    private(set) var completed: [Int] = []

    init(_ format: ImageFormat) throws {
      files = try ImageBench()
      let (lock, path) = (lock, files.path("disk"))
      let deviceLock: RawImage.DeviceLock = { body in
        lock.withLock {
          body()
          lock.wakeAll()
        }
      }
      let image: any DiskImage
      switch format {
      case .raw:
        try files.directory.write([UInt8](repeating: 0, count: 1 << 20), to: "disk")
        image = try RawImage(path: path, use: .disk, isReadOnly: false, deviceLock: deviceLock)
      case .qcow2:
        try files.create("disk", Qcow2Options(byteCount: 1 << 20))
        image = try Qcow2Disk(
          path: path, isReadOnly: false, BackingPolicy(), deviceLock: deviceLock)
      }
      disk = AttachedDisk(image, deviceLock: deviceLock)
    }

    /// Asks for a sector of `number`, at its place.
    func write(_ number: Int) {
      lock.withLock {
        disk.write(
          offset: UInt64(number) * 512, bytes: [UInt8](repeating: UInt8(number), count: 512)
        ) { [unowned self] result in
          if case .success = result { completed.append(number) }
        }
      }
    }

    func wait(for number: Int) {
      lock.withLock { while !completed.contains(number) { lock.wait() } }
    }

    func sector(_ number: Int) throws -> [UInt8] {
      var answer: Result<[UInt8], BlockError>?
      lock.withLock {
        disk.read(offset: UInt64(number) * 512, count: 512) { answer = $0 }
        while answer == nil { lock.wait() }
      }
      return try #require(answer).get()
    }
  }

  private func filled(_ number: Int) -> [UInt8] { [UInt8](repeating: UInt8(number), count: 512) }

  @Test(
    "what is asked of a held disk is done to the overlay alone", arguments: ImageFormat.allCases)
  func switches(format: ImageFormat) throws {
    let bench = try Bench(format)
    for number in 1...40 { bench.write(number) }
    let overlay = try DiskOverlay(of: bench.disk, at: bench.files.path("one"))
    try overlay.hold()
    #expect(bench.completed.sorted() == Array(1...40), "all that was asked for is done")
    for number in 41...60 { bench.write(number) }
    let frozen = try bench.files.directory.read("disk")
    try bench.lock.withLock {
      try overlay.share()
      overlay.switchOver()
    }
    overlay.finish()
    for number in 41...60 { bench.wait(for: number) }
    for number in [1, 40, 41, 60] { #expect(try bench.sector(number) == filled(number)) }
    #expect(bench.disk.layers.map(\.format) == [.qcow2, format])
    bench.disk.close()
    #expect(try bench.files.directory.read("disk") == frozen)
    let top = try bench.files.open("one", isReadOnly: true)
    for number in [1, 40, 41, 60] {
      #expect(try top.read(512, at: UInt64(number) * 512) == filled(number))
    }
  }

  @Test(
    "taken back, it leaves the disk with its image and nothing else",
    arguments: ImageFormat.allCases, [false, true])
  func abandons(format: ImageFormat, isShared: Bool) throws {
    let bench = try Bench(format)
    let overlay = try DiskOverlay(of: bench.disk, at: bench.files.path("one"))
    try overlay.hold()
    bench.write(7)
    if isShared {
      try overlay.share()
      overlay.unshare()
    }
    overlay.abandon()
    bench.wait(for: 7)
    #expect(try bench.sector(7) == filled(7))
    #expect(!Files.exists(bench.files.path("one")))
    let file = try FileDescriptor.open(bench.files.path("disk"))
    #expect(throws: SystemError.self, "it is locked as it was") { try file.lock(exclusive: false) }
    // And it can be tried again.
    let second = try DiskOverlay(of: bench.disk, at: bench.files.path("one"))
    try second.hold()
    second.abandon()
    bench.disk.close()
  }

  @Test("what a device took back of a held disk is not done, and what it asks for then is")
  func forgets() throws {
    let bench = try Bench(.raw)
    bench.write(1)
    bench.wait(for: 1)
    let overlay = try DiskOverlay(of: bench.disk, at: bench.files.path("one"))
    try overlay.hold()
    for _ in 0..<10 {
      bench.write(2)
      bench.lock.withLock { bench.disk.forget() }
    }
    bench.write(3)
    overlay.abandon()
    bench.wait(for: 3)
    #expect(try bench.sector(2) == filled(0))
    #expect(bench.completed == [1, 3])
    bench.disk.close()
  }

  @Test("an overlay elsewhere says the whole path, and one beside it the name alone")
  func names() throws {
    let bench = try Bench(.raw)
    try bench.files.run("mkdir other")
    for (path, name) in [("one", "disk"), ("other/one", bench.files.path("disk"))] {
      let overlay = try DiskOverlay(of: bench.disk, at: bench.files.path(path))
      let image = try FileDescriptor.open(bench.files.path(path))
      let start = try image.read(upTo: 4096)
      #expect(String(decoding: start, as: UTF8.self).contains("\(name)"))
      #expect(String(decoding: start, as: UTF8.self).contains("/tmp") == (path != "one"))
      overlay.abandon()
    }
    bench.disk.close()
  }
}

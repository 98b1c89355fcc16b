import DeviceModel
import Disk
import Glibc
import LinuxSystem
import TestSupport
import Testing

/// A directory of its own, with a lock standing in for the machine's.
private final class Bench {
  private let temporary: TemporaryDirectory
  var directory: String { temporary.path }
  let deviceLock = Lock()

  init() throws { temporary = try TemporaryDirectory() }

  func file(_ bytes: [UInt8], name: String = "disk") throws -> String {
    let path = "\(directory)/\(name)"
    try FileDescriptor.open(path, [.writeOnly, .create, .truncate]).writeAll(bytes)
    return path
  }

  func open(
    _ path: String, use: RawImage.Use = .disk, isReadOnly: Bool = false
  ) throws(DiskError) -> RawImage {
    let lock = deviceLock
    return try RawImage(path: path, use: use, isReadOnly: isReadOnly) { body in
      lock.withLock {
        body()
        lock.wakeAll()
      }
    }
  }

  /// Waits for the answer to a request made by `start`.
  func answer<Value>(_ start: (@escaping (Value) -> Void) -> Void) -> Value? {
    var answer: Value?
    deviceLock.withLock {
      start { answer = $0 }
      while answer == nil { deviceLock.wait() }
    }
    return answer
  }

  func read(_ image: RawImage, _ offset: UInt64, _ count: Int) -> Result<[UInt8], BlockError>? {
    answer { image.read(offset: offset, count: count, completion: $0) }
  }

  func write(_ image: RawImage, _ offset: UInt64, _ bytes: [UInt8]) -> Result<Void, BlockError>? {
    answer { image.write(offset: offset, bytes: bytes, completion: $0) }
  }

  func flush(_ image: RawImage) -> Result<Void, BlockError>? {
    answer { image.flush(completion: $0) }
  }
}

extension Result where Failure == BlockError {
  fileprivate var errorKind: BlockError.Kind? {
    guard case .failure(let error) = self else { return nil }
    return error.kind
  }
}

@Suite struct RawImageTests {
  @Test("what is written is read back, and is in the file")
  func readsAndWrites() throws {
    let bench = try Bench()
    let path = try bench.file([UInt8](repeating: 7, count: 4096))
    let image = try bench.open(path)
    #expect(image.byteCount == 4096)
    #expect(bench.write(image, 512, Array(0...255))?.errorKind == nil)
    #expect(bench.flush(image)?.errorKind == nil)
    #expect(try bench.read(image, 510, 260)?.get() == [7, 7] + Array(0...255) + [7, 7])
    image.close()
    let bytes = try Files.read(path)
    #expect(bytes.count == 4096 && bytes[513] == 1)
  }

  @Test("many requests at once all complete, once, never within the call")
  func many() throws {
    let bench = try Bench()
    let path = try bench.file([UInt8](repeating: 0xFF, count: 100 * 512))
    let image = try bench.open(path)
    var order: [Int] = []
    bench.deviceLock.withLock {
      for index in 0..<100 {
        image.write(
          offset: UInt64(index * 512), bytes: [UInt8](repeating: UInt8(index), count: 512)
        ) { _ in order.append(index) }
      }
      #expect(order.isEmpty)
      while order.count < 100 { bench.deviceLock.wait() }
    }
    image.close()
    #expect(order.sorted() == Array(0..<100))
    #expect(try Files.read(path).enumerated().allSatisfy { $1 == UInt8($0 / 512) })
  }

  @Test("bytes are read to their places, few or many, or not at all", arguments: [512, 64 << 10])
  func readsInPlace(count: Int) throws {
    let bench = try Bench()
    let bytes = (0..<256 << 10).map { UInt8(truncatingIfNeeded: $0 / 7) }
    let image = try bench.open(try bench.file(bytes))
    let memories = (0..<3).map { _ in PieceMemory(count) }
    var completed: [Int] = []
    bench.deviceLock.withLock {
      for (index, isWanted) in [true, false, true].enumerated() {
        image.read(
          offset: UInt64(index) * 512 + 3, count: count,
          target: { isWanted ? memories[index].reversedSpace(piece: count / 4) : nil },
          completion: { completed.append((try? $0.get()) == nil ? -1 : index) })
      }
      while completed.count < 2 { bench.deviceLock.wait() }
    }
    image.close()
    #expect(completed.sorted() == [0, 2])
    let part = count / 4
    for index in [0, 2] {
      var expected: [UInt8] = []
      for piece in [3, 2, 1, 0] {
        let start = index * 512 + 3 + piece * part
        expected += bytes[start..<start + part]
      }
      #expect(Array(memories[index].bytes) == expected)
    }
  }

  @Test("what a file that shrank has no more reads as zeros in its place, few or many bytes")
  func shrunkInPlace() throws {
    let bench = try Bench()
    for count in [1024, 32 << 10] {
      let path = try bench.file([UInt8](repeating: 7, count: 64 << 10))
      let image = try bench.open(path)
      #expect(truncate(path, 512) == 0)
      let memory = PieceMemory(count)
      memory.fill(9)
      let result: Result<Void, BlockError>? = bench.answer { done in
        image.read(
          offset: 0, count: count, target: { memory.reversedSpace(piece: count / 4) },
          completion: done)
      }
      try result?.get()
      image.close()
      let part = count / 4
      var read: [UInt8] = []
      for piece in [3, 2, 1, 0] { read += memory.bytes[piece * part..<(piece + 1) * part] }
      let expected =
        [UInt8](repeating: 7, count: 512) + [UInt8](repeating: 0, count: count - 512)
      #expect(read == expected)
    }
  }

  @Test("bytes to write are looked for when their turn comes, or not written")
  func writesInPlace() throws {
    let bench = try Bench()
    let path = try bench.file([UInt8](repeating: 7, count: 4096))
    let image = try bench.open(path)
    let memory = PieceMemory(512)
    memory.fill(1)
    var completed: [Int] = []
    bench.deviceLock.withLock {
      for (index, isWanted) in [true, false, true].enumerated() {
        image.write(
          offset: UInt64(index) * 512, count: 512,
          source: { isWanted ? memory.reversed(piece: 512) : nil },
          completion: { _ in completed.append(index) })
      }
      memory.fill(2)
      while completed.count < 2 { bench.deviceLock.wait() }
    }
    image.close()
    #expect(completed.sorted() == [0, 2])
    let bytes = try Files.read(path)
    #expect([0, 511, 512, 1023, 1024, 1535, 1536].map { bytes[$0] } == [2, 2, 7, 7, 2, 2, 7])
  }

  @Test("more pieces than one system call takes are written one behind the other")
  func manyPieces() throws {
    let bench = try Bench()
    let size = 2500 * 16
    let path = try bench.file([UInt8](repeating: 0, count: 80 * 512))
    let image = try bench.open(path)
    let memory = PieceMemory(size)
    for place in 0..<size { memory.bytes[place] = UInt8(truncatingIfNeeded: place / 16) }
    let result: Result<Void, BlockError>? = bench.answer { done in
      image.write(
        offset: 512, count: size, source: { memory.reversed(piece: 16) }, completion: done)
    }
    try result?.get()
    image.close()
    let written = try Files.read(path)[512..<512 + size]
    #expect(Array(written) == memory.bytes.reversed())
  }

  @Test("once writes have settled, memory may be used for something else")
  func settles() throws {
    let bench = try Bench()
    let size = 1 << 20
    let path = try bench.file([UInt8](repeating: 0, count: size))
    let image = try bench.open(path)
    let memory = PieceMemory(size)
    for turn in 1...50 as ClosedRange<UInt8> {
      memory.fill(turn)
      var (isStarted, isOver) = (false, false)
      bench.deviceLock.withLock {
        image.write(
          offset: 0, count: size,
          source: {
            isStarted = true
            return memory.reversed(piece: 4096)
          }, completion: { _ in isOver = true })
        while !isStarted { bench.deviceLock.wait() }
        image.settle()
        memory.fill(0xFF)
        while !isOver { bench.deviceLock.wait() }
      }
      let isWhole = try Files.read(path).allSatisfy { $0 == turn }
      #expect(isWhole)
    }
  }

  @Test("once reads have settled, nothing is written to memory any more")
  func readsSettle() throws {
    let bench = try Bench()
    let size = 1 << 20
    let image = try bench.open(try bench.file([UInt8](repeating: 5, count: size)))
    let memory = PieceMemory(size)
    for _ in 0..<50 {
      memory.fill(0)
      var (isStarted, isOver) = (false, false)
      bench.deviceLock.withLock {
        image.read(
          offset: 0, count: size,
          target: {
            isStarted = true
            return memory.reversedSpace(piece: 4096)
          }, completion: { _ in isOver = true })
        while !isStarted { bench.deviceLock.wait() }
        image.settle()
        #expect(memory.bytes.allSatisfy { $0 == 5 })
        memory.fill(0xFF)
        while !isOver { bench.deviceLock.wait() }
      }
      #expect(memory.bytes.allSatisfy { $0 == 0xFF })
    }
    image.close()
  }

  @Test("once many writes have settled, memory may be used for something else")
  func manySettle() throws {
    let bench = try Bench()
    let path = try bench.file([UInt8](repeating: 0, count: 32 << 12))
    let image = try bench.open(path)
    let memory = PieceMemory(1 << 12)
    for turn in 1...30 as ClosedRange<UInt8> {
      var (taken, completed): (Set<Int>, Int) = ([], 0)
      try bench.deviceLock.withLock {
        memory.fill(turn)
        for index in 0..<32 {
          image.write(
            offset: UInt64(index) << 12, count: 1 << 12,
            source: {
              taken.insert(index)
              return memory.reversed(piece: 1 << 12)
            }, completion: { _ in completed += 1 })
        }
        while taken.isEmpty { bench.deviceLock.wait() }
        image.settle()
        let early = taken
        memory.fill(0xFF)
        while completed < 32 { bench.deviceLock.wait() }
        let written = try Files.read(path)
        for block in 0..<32 {
          let byte = early.contains(block) ? turn : 0xFF
          let isWhole = written[(block << 12)..<((block + 1) << 12)].allSatisfy { $0 == byte }
          #expect(isWhole)
        }
      }
    }
    image.close()
  }

  @Test("of many writes at once each has its own answer", .needsRoot)
  func answers() throws {
    let bench = try Bench()
    let small = try SmallDisk(kibibytes: 64)
    let path = "\(small.path)/disk"
    try FileDescriptor.open(path, [.writable, .create]).setSize(1 << 20)
    let image = try bench.open(path)
    let memory = PieceMemory(4096)
    // Sixteen pages are all there is; what is there already can be written.
    for blocks in [Array(0..<16), [16, 3, 17, 18, 4, 19]] {
      var kinds: [Int: BlockError.Kind?] = [:]
      bench.deviceLock.withLock {
        for block in blocks {
          image.write(
            offset: UInt64(block * 4096), count: 4096, source: { memory.reversed(piece: 4096) },
            completion: { kinds[block] = $0.errorKind })
        }
        while kinds.count < blocks.count { bench.deviceLock.wait() }
      }
      for block in blocks { #expect(kinds[block] == .some(block < 16 ? nil : .noSpace)) }
    }
    image.close()
  }

  @Test("a write that is refused looks for nothing")
  func refusedWrite() throws {
    let bench = try Bench()
    let path = try bench.file([UInt8](repeating: 7, count: 4096))
    let memory = PieceMemory(512)
    var looked = 0
    for (isReadOnly, offset, kind) in [
      (true, 0, BlockError.Kind.readOnly), (false, 4096, .outOfRange),
    ] {
      let image = try bench.open(path, isReadOnly: isReadOnly)
      let answer: Result<Void, BlockError>? = bench.answer { done in
        image.write(
          offset: UInt64(offset), count: 512,
          source: {
            looked += 1
            return memory.reversed(piece: 512)
          }, completion: done)
      }
      #expect(answer?.errorKind == kind)
      image.close()
    }
    #expect(looked == 0)
  }

  @Test("closing carries out what was asked for first")
  func close() throws {
    let bench = try Bench()
    let path = try bench.file([UInt8](repeating: 0, count: 64 << 10))
    let image = try bench.open(path)
    var completed = 0
    for index in 0..<128 {
      image.write(offset: UInt64(index * 512), bytes: [UInt8](repeating: 1, count: 512)) { _ in
        completed += 1
      }
    }
    image.close()
    #expect(completed == 128)
    #expect(try Files.read(path) == [UInt8](repeating: 1, count: 64 << 10))
  }

  @Test("a missing image is named, with a remedy")
  func missing() throws {
    let error = #expect(throws: DiskError.self) { try Bench().open("/nonexistent/disk.img") }
    #expect(error?.kind == .notFound)
    #expect(error.map { "\($0)".contains("/nonexistent/disk.img does not exist") } == true)
  }

  @Test("odd sizes and empty files are refused", arguments: [0, 1, 511, 513, 100_000])
  func oddSize(count: Int) throws {
    let bench = try Bench()
    let path = try bench.file([UInt8](repeating: 0, count: count))
    let error = #expect(throws: DiskError.self) { try bench.open(path) }
    #expect(error?.kind == .oddSize)
    #expect(error.map { "\($0)".contains(path) } == true)
  }

  @Test("a CD-ROM image must be a whole number of its larger sectors")
  func oddCDROM() throws {
    let bench = try Bench()
    let path = try bench.file([UInt8](repeating: 0, count: 2048 + 512))
    #expect(throws: DiskError.self) { try bench.open(path, use: .cdrom) }
    #expect(throws: Never.self) { try bench.open(path, use: .disk) }
  }

  @Test("directories, devices that are no disks and other formats are refused")
  func notAnImage() throws {
    let bench = try Bench()
    let qcow = try bench.file(Array("QFI".utf8) + [0xFB] + [UInt8](repeating: 0, count: 508))
    for path in [bench.directory, "/dev/null", qcow] {
      for isReadOnly in [true, false] {
        let error = #expect(throws: DiskError.self) {
          try bench.open(path, isReadOnly: isReadOnly)
        }
        #expect(error?.kind == .notAnImage)
      }
    }
  }

  @Test("an image that another VMM has open is refused, and the holder named")
  func locked() throws {
    let bench = try Bench()
    let path = try bench.file([UInt8](repeating: 0, count: 512))
    let first = try bench.open(path)
    for isReadOnly in [false, true] {
      let error = #expect(throws: DiskError.self) {
        try bench.open(path, isReadOnly: isReadOnly)
      }
      #expect(error?.kind == .inUse)
      let text = error.map { "\($0)" } ?? ""
      #expect(text.contains("in use by another VMM (process \(getpid()))"))
    }
    first.close()
  }

  @Test("the lock goes with the image")
  func unlocks() throws {
    let bench = try Bench()
    let path = try bench.file([UInt8](repeating: 0, count: 512))
    for _ in 0..<3 {
      let image = try bench.open(path)
      image.close()
    }
  }

  @Test("read-only images are shared, and refuse writers")
  func shared() throws {
    let bench = try Bench()
    let path = try bench.file([UInt8](repeating: 5, count: 2048))
    let first = try bench.open(path, use: .cdrom)
    let second = try bench.open(path, isReadOnly: true)
    #expect(first.isReadOnly && second.isReadOnly)
    #expect(try bench.read(second, 0, 1)?.get() == [5])
    #expect(bench.write(first, 0, [1])?.errorKind == .readOnly)
    let error = #expect(throws: DiskError.self) { try bench.open(path) }
    #expect(error?.kind == .inUse)
  }

  @Test("requests beyond the end are out of range and move nothing")
  func range() throws {
    let bench = try Bench()
    let path = try bench.file([UInt8](repeating: 0, count: 1024))
    let image = try bench.open(path)
    #expect(bench.read(image, 1024, 1)?.errorKind == .outOfRange)
    #expect(bench.read(image, .max, 1)?.errorKind == .outOfRange)
    #expect(bench.read(image, 0, -1)?.errorKind == .outOfRange)
    #expect(bench.write(image, 1000, [UInt8](repeating: 0, count: 25))?.errorKind == .outOfRange)
    #expect(try bench.read(image, 1024, 0)?.get() == [])
    image.close()
    #expect(try Files.read(path).count == 1024)
  }

  private func storage(_ path: String) -> Int {
    var status = stat()
    return stat(path, &status) == 0 ? Int(status.st_blocks) * 512 : -1
  }

  @Test("a discarded range takes no room, and a zeroed one reads as zeros")
  func clearing() throws {
    let bench = try Bench()
    let path = try bench.file([UInt8](repeating: 9, count: 1 << 20))
    let image = try bench.open(path)
    let discarded: Result<Void, BlockError>? = bench.answer {
      image.discard(offset: 0, count: 512 << 10, completion: $0)
    }
    try discarded?.get()
    try bench.write(image, 0, [7])?.get()
    #expect(storage(path) <= 600 << 10)
    for mayDiscard in [false, true] {
      let offset: UInt64 = mayDiscard ? 600 << 10 : 800 << 10
      let zeroed: Result<Void, BlockError>? = bench.answer {
        image.writeZeroes(
          offset: offset + 512, count: 100 << 10, mayDiscard: mayDiscard, completion: $0)
      }
      try zeroed?.get()
      let bytes = try bench.read(image, offset, 102 << 10)?.get()
      let expected =
        [UInt8](repeating: 9, count: 512) + [UInt8](repeating: 0, count: 100 << 10)
        + [UInt8](repeating: 9, count: 1536)
      let isCleared = bytes == expected
      #expect(isCleared)
    }
    #expect(try FileDescriptor.open(path, []).size() == 1 << 20)
  }

  @Test("ranges beyond the end, or of a read-only image, are not cleared")
  func noClearing() throws {
    let bench = try Bench()
    let path = try bench.file([UInt8](repeating: 9, count: 4096))
    let image = try bench.open(path, isReadOnly: true)
    let refused: Result<Void, BlockError>? = bench.answer {
      image.discard(offset: 0, count: 512, completion: $0)
    }
    #expect(refused?.errorKind == .readOnly)
    image.close()
    let writable = try bench.open(path)
    let beyond: Result<Void, BlockError>? = bench.answer {
      writable.writeZeroes(offset: 4096 - 512, count: 1024, mayDiscard: true, completion: $0)
    }
    #expect(beyond?.errorKind == .outOfRange)
    #expect(try bench.read(writable, 0, 4096)?.get() == [UInt8](repeating: 9, count: 4096))
  }

  @Test("a file that shrank under us reads as zeros")
  func shrunk() throws {
    let bench = try Bench()
    let path = try bench.file([UInt8](repeating: 9, count: 2048))
    let image = try bench.open(path)
    try FileDescriptor.open(path, [.writable]).setSize(1000)
    let bytes = try bench.read(image, 512, 1024)?.get()
    #expect(bytes == [UInt8](repeating: 9, count: 488) + [UInt8](repeating: 0, count: 536))
  }

  @Test("a full file system is told from a bad medium", .needsRoot)
  func full() throws {
    let bench = try Bench()
    let small = try SmallDisk(kibibytes: 64)
    let path = "\(small.path)/disk"
    try FileDescriptor.open(path, [.writable, .create]).setSize(1 << 20)
    let image = try bench.open(path)
    let result = bench.write(image, 0, [UInt8](repeating: 1, count: 512 << 10))
    #expect(result?.errorKind == .noSpace)
    image.close()
  }
}

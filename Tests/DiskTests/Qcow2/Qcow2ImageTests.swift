import DeviceModel
import Disk
import LinuxSystem
import Synchronization
import TestSupport
import Testing

@Suite("qcow2 images", .needs("qemu-img", "qemu-io"))
struct Qcow2ImageTests {
  private final class Constant: ImageLayer {
    let path = "base"
    let byteCount: UInt64
    let value: UInt8

    init(byteCount: UInt64, value: UInt8) {
      self.byteCount = byteCount
      self.value = value
    }

    func unlock() {}

    func read(into buffers: [UnsafeMutableRawBufferPointer], offset: UInt64) {
      for buffer in buffers { buffer.initializeMemory(as: UInt8.self, repeating: value) }
    }
  }

  @Test(
    "requests of several threads at once end as if they had come one by one",
    arguments: [nil, 0], [1024, 16384])
  func threads(cacheBytes: Int?, clusterSize: Int) throws {
    let bench = try ImageBench()
    try bench.create("disk", Qcow2Options(byteCount: 8 << 20, clusterSize: clusterSize))
    let image = try Qcow2Image(
      path: "disk", storage: RecordingStorage(try bench.directory.read("disk")), isReadOnly: false,
      backing: Constant(byteCount: 5 << 20, value: 0xEE), cacheBytes: cacheBytes)
    // Each thread has every fourth block of 1 KiB to itself, so that all share each cluster.
    let failures = Guarded<[String]>([])
    let threads = try (0..<4).map { number in
      try Thread(name: "writer \(number)") {
        do {
          try work(image, number, failures)
        } catch {
          failures.withLock { $0.append("\(error)") }
        }
      }
    }
    for thread in threads { thread.join() }
    #expect(failures.withLock { $0 } == [])
    try image.close()
    #expect(try image.check().isClean)
  }

  private func work(
    _ image: Qcow2Image, _ number: Int, _ failures: Guarded<[String]>
  ) throws {
    var generator = SeededGenerator(seed: UInt64(number) + 400)
    let blocks = Int(image.byteCount) / 4096
    var model = (0..<blocks).map { block in
      UInt8((block * 4 + number) * 1024 < 5 << 20 ? 0xEE : 0)
    }
    for _ in 0..<3000 {
      let block = Int.random(in: 0..<blocks, using: &generator)
      let offset = UInt64((block * 4 + number) * 1024)
      switch Int.random(in: 0..<10, using: &generator) {
      case 0...4:
        let value = UInt8.random(in: 1...250, using: &generator)
        try image.write([UInt8](repeating: value, count: 1024), at: offset)
        model[block] = value
      case 5:
        try image.writeZeroes(offset: offset, count: 1024, mayDiscard: true)
        model[block] = 0
      case 6: if Int.random(in: 0..<20, using: &generator) == 0 { try image.flush() }
      default:
        let expected = [UInt8](repeating: model[block], count: 1024)
        if try image.read(1024, at: offset) != expected {
          failures.withLock { $0.append("block \(block) of \(number)") }
        }
      }
    }
    for (block, value) in model.enumerated() {
      let bytes = try image.read(1024, at: UInt64((block * 4 + number) * 1024))
      if bytes != [UInt8](repeating: value, count: 1024) {
        failures.withLock { $0.append("in the end, block \(block) of \(number)") }
      }
    }
  }

  @Test("whole clusters that are discarded and written by several threads are never mixed up")
  func discards() throws {
    let bench = try ImageBench()
    try bench.create("disk", Qcow2Options(byteCount: 4 << 20, clusterSize: 4096))
    let image = try bench.open("disk")
    let failures = Guarded<[String]>([])
    let threads = try (0..<4).map { number in
      try Thread(name: "writer \(number)") {
        var generator = SeededGenerator(seed: UInt64(number) + 900)
        do {
          for _ in 0..<2000 {
            let offset = UInt64(Int.random(in: 0..<256, using: &generator) * 4 + number) * 4096
            let bytes = [UInt8](repeating: UInt8(number + 1), count: 4096)
            try image.write(bytes, at: offset)
            if try image.read(4096, at: offset) != bytes {
              failures.withLock { $0.append("\(offset)") }
            }
            try image.discard(offset: offset, count: 4096)
            if Int.random(in: 0..<50, using: &generator) == 0 { try image.flush() }
            // What is freed and given to another thread must not show here.
            if try image.read(4096, at: offset) != [UInt8](repeating: 0, count: 4096) {
              failures.withLock { $0.append("\(offset) after its discard") }
            }
          }
        } catch {
          failures.withLock { $0.append("\(error)") }
        }
      }
    }
    for thread in threads { thread.join() }
    #expect(failures.withLock { $0.prefix(5) } == [])
    try image.close()
    try bench.check("disk")
  }

  @Test("a cluster that is let go of while it is read or written is not given to another before")
  func epochs() throws {
    let storage = RecordingStorage()
    try Qcow2Image.format(storage, Qcow2Options(byteCount: 1 << 20, clusterSize: 4096), path: "i")
    let image = try Qcow2Image(path: "i", storage: storage, isReadOnly: false)
    let (old, new) = ([UInt8](repeating: 1, count: 4096), [UInt8](repeating: 2, count: 4096))
    let errors = Guarded<[String]>([])
    for (number, isWrite) in [false, true].enumerated() {
      let first = UInt64(number) * 65536
      try image.write(old, at: first)
      try image.flush()
      storage.interrupt {
        do {
          try image.discard(offset: first, count: 4096)
          try image.flush()
          for cluster: UInt64 in 1...4 { try image.write(new, at: first + cluster * 4096) }
        } catch {
          errors.withLock { $0.append("\(error)") }
        }
      }
      if isWrite {
        try image.write(old, at: first)
      } else {
        #expect(try image.read(4096, at: first) == old)
      }
      for cluster: UInt64 in 1...4 {
        #expect(try image.read(4096, at: first + cluster * 4096) == new)
      }
      #expect(try image.read(4096, at: first) == [UInt8](repeating: 0, count: 4096))
    }
    #expect(errors.withLock { $0 } == [])
    try image.close()
    #expect(try image.check().isClean)
  }

  @Test("a lazy image that was not closed is repaired when it is opened")
  func lazy() throws {
    var generator = SeededGenerator(seed: 9)
    let bench = try ImageBench()
    try bench.run("qemu-img create -q -f qcow2 -o lazy_refcounts=on,cluster_size=4096 disk 2M")
    // qemu-io that is killed leaves the image dirty.
    _ = try bench.directory.run(
      "qemu-io -f qcow2 -c 'write -P 3 1000000 50000' -c flush -c 'sigraise 9' disk")
    let opened = try bench.open("disk", isReadOnly: true)
    #expect(opened.header.isDirty)
    try opened.close()
    let image = try bench.open("disk")
    #expect(!image.header.isDirty)
    #expect(try image.read(50000, at: 1_000_000) == [UInt8](repeating: 3, count: 50000))
    #expect(try image.check().isClean)
    try image.write([UInt8].random(1000, using: &generator), at: 5)
    #expect(image.header.isDirty)
    try image.close()
    #expect(try bench.run("qemu-img info disk").contains("corrupt: false"))
    try bench.check("disk")
  }

  @Test("an image that is marked as corrupt is only read, and one that is found so is marked")
  func corrupt() throws {
    let bench = try ImageBench()
    try bench.run(
      """
      qemu-img create -q -f qcow2 -o cluster_size=4096 disk 2M
      qemu-io -f qcow2 -c 'write -q -P 1 0 1M' disk
      """)
    var bytes = try bench.directory.read("disk")
    let sound = bytes
    // The first L2 table's second entry leads to the header's cluster, more or less.
    let l1 = bytes[40..<48].reduce(0) { $0 << 8 | Int($1) }
    let l2 = bytes[l1 + 2..<l1 + 8].reduce(0) { $0 << 8 | Int($1) }
    bytes.replaceSubrange(l2 + 8..<l2 + 16, with: [0x80, 0, 0, 0, 0, 0, 0x10, 0])
    try bench.directory.write(bytes, to: "disk")
    let image = try bench.open("disk")
    #expect(throws: DiskError.self) { try image.read(1, at: 4096) }
    #expect(try image.read(1, at: 0) == [1])
    let error = #expect(throws: DiskError.self) { try image.write([9], at: 4096) }
    #expect(error?.kind == .corrupt)
    #expect(throws: DiskError.self) { try image.write([9], at: 0) }
    #expect(try image.check().errors > 0)
    try? image.close()
    #expect(try bench.run("qemu-img info disk").contains("corrupt: true"))
    let again = #expect(throws: DiskError.self) { try bench.open("disk") }
    #expect(again?.context.contains("marked as corrupt") == true)
    #expect(try bench.open("disk", isReadOnly: true).read(1, at: 0) == [1])
    #expect(sound.count <= bytes.count)
  }

  @Test("bitmaps are kept, and count as inconsistent once the image was written")
  func bitmaps() throws {
    let bench = try ImageBench()
    try bench.run(
      """
      qemu-img create -q -f qcow2 disk 4M
      qemu-img bitmap --add -f qcow2 disk changes
      qemu-io -f qcow2 -c 'write -q -P 1 0 1M' disk
      """)
    let reader = try bench.open("disk", isReadOnly: true)
    #expect(try reader.check().isClean)
    #expect(reader.header.autoclear == 1)
    try reader.close()
    let image = try bench.open("disk")
    #expect(image.header.autoclear == 1)
    try image.write([1, 2, 3], at: 2 << 20)
    #expect(image.header.autoclear == 0 && image.header.bitmaps != nil)
    #expect(try image.check().isClean)
    try image.close()
    #expect(try bench.contents("disk").prefix(2 << 20).last == 0)
    // QEMU takes what it must not use for lost room.
    #expect(try bench.directory.run("qemu-img check -f qcow2 disk").status == 3)
  }

  @Test("a disk grows, and what is new reads as zeros")
  func growing() throws {
    for clusterSize in [512, 65536] {
      let bench = try ImageBench()
      try bench.create("disk", Qcow2Options(byteCount: 1 << 20, clusterSize: clusterSize))
      var image = try bench.open("disk")
      try image.write([UInt8](repeating: 5, count: 70000), at: 1000)
      try image.growDisk(to: clusterSize == 512 ? 20 << 20 : 3 << 40)
      try image.close()
      try bench.check("disk")
      image = try bench.open("disk")
      #expect(try image.read(2, at: image.byteCount - 2) == [0, 0])
      try image.write([9], at: image.byteCount - 1)
      #expect(try image.read(70000, at: 1000) == [UInt8](repeating: 5, count: 70000))
      try image.close()
      try bench.check("disk")
    }
  }

  @Test("a large image needs larger tables as it fills")
  func refcountTable() throws {
    let bench = try ImageBench()
    // A block counts 64 clusters of 512 bytes, and a table's cluster leads to 64 blocks.
    try bench.create(
      "disk", Qcow2Options(byteCount: 24 << 20, clusterSize: 512, refcountBits: 64))
    let image = try bench.open("disk")
    let before = image.header.refcountTableClusters
    let bytes = [UInt8](repeating: 0x5A, count: 1 << 20)
    for megabyte in 0..<24 { try image.write(bytes, at: UInt64(megabyte) << 20) }
    #expect(image.header.refcountTableClusters > before)
    #expect(try image.check().isClean)
    try image.close()
    try bench.check("disk")
    #expect(try bench.contents("disk") == [UInt8](repeating: 0x5A, count: 24 << 20))
  }

  @Test("what is let go of is used again, and its storage returned")
  func reuse() throws {
    let bench = try ImageBench()
    try bench.create("disk", Qcow2Options(byteCount: 64 << 20))
    let image = try bench.open("disk")
    let bytes = [UInt8](repeating: 1, count: 8 << 20)
    for round in 0..<6 {
      try image.write(bytes, at: UInt64(round % 3) * (16 << 20))
      try image.flush()
      try image.discard(offset: UInt64(round % 3) * (16 << 20), count: 8 << 20)
      try image.flush()
    }
    try image.close()
    let file = try FileDescriptor.open(bench.path("disk"))
    #expect(try file.size() < 12 << 20)
    #expect(file.storedBytes < 2 << 20)
    try bench.check("disk")
  }

  @Test("a disk that is full is told so, and goes on when there is room", .needsRoot)
  func full() throws {
    let bench = try ImageBench()
    let small = try SmallDisk(kibibytes: 600)
    try Qcow2Image.create("\(small.path)/disk", Qcow2Options(byteCount: 8 << 20, clusterSize: 4096))
    let image = try Qcow2Image.open("\(small.path)/disk", isReadOnly: false, .none)
    try image.write([UInt8](repeating: 1, count: 100_000), at: 0)
    try image.flush()
    let error = #expect(throws: DiskError.self) {
      try image.write([UInt8](repeating: 2, count: 2 << 20), at: 1 << 20)
    }
    #expect(error?.kind == .noSpace)
    #expect(try image.read(100_000, at: 0) == [UInt8](repeating: 1, count: 100_000))
    try image.discard(offset: 1 << 20, count: 2 << 20)
    try image.flush()
    try image.write([UInt8](repeating: 3, count: 50_000), at: 4 << 20)
    try image.close()
    try bench.run("qemu-img check -f qcow2 \(small.path)/disk")
  }
}

@Suite("qcow2 images as disks")
struct Qcow2DiskTests {
  private final class Machine {
    let lock = Lock()
    let bench: ImageBench
    let disk: Qcow2Disk

    init() throws {
      bench = try ImageBench()
      try bench.create("disk", Qcow2Options(byteCount: 4 << 20))
      let lock = lock
      disk = try Qcow2Disk(
        path: bench.path("disk"), isReadOnly: false, BackingPolicy()
      ) { body in
        lock.withLock {
          body()
          lock.wakeAll()
        }
      }
    }

    func answer<Value>(_ start: (@escaping (Value) -> Void) -> Void) -> Value? {
      var answer: Value?
      lock.withLock {
        start { answer = $0 }
        while answer == nil { lock.wait() }
      }
      return answer
    }
  }

  @Test("many requests at once all complete under the device lock, and are in the image")
  func requests() throws {
    let machine = try Machine()
    var completed = 0
    machine.lock.withLock {
      for number in 0..<200 {
        machine.disk.write(
          offset: UInt64(number) * 16384, bytes: [UInt8](repeating: UInt8(number), count: 512)
        ) { result in
          if case .success = result { completed += 1 }
        }
      }
      #expect(completed == 0)
      while completed < 200 { machine.lock.wait() }
    }
    let flushed: Result<Void, BlockError>? = machine.answer { machine.disk.flush(completion: $0) }
    try flushed?.get()
    let read: Result<[UInt8], BlockError>? = machine.answer {
      machine.disk.read(offset: 199 * 16384, count: 513, completion: $0)
    }
    #expect(try read?.get() == [UInt8](repeating: 199, count: 512) + [0])
    machine.disk.close()
    machine.disk.close()
    let image = try machine.bench.open("disk", isReadOnly: true)
    for number in 0..<200 {
      #expect(try image.read(1, at: UInt64(number) * 16384) == [UInt8(number)])
    }
    #expect(try image.check().isClean)
  }

  @Test("bytes are written from where they are, which is free again once writes have settled")
  func writesInPlace() throws {
    let machine = try Machine()
    let memory = PieceMemory(256 << 10)
    for turn in 1...20 as ClosedRange<UInt8> {
      memory.fill(turn)
      var (isStarted, isOver) = (false, false)
      machine.lock.withLock {
        machine.disk.write(
          offset: 512, count: memory.bytes.count,
          source: {
            isStarted = true
            return memory.reversed(piece: 4096)
          }, completion: { _ in isOver = true })
        while !isStarted { machine.lock.wait() }
        machine.disk.settle()
        memory.fill(0xFF)
        while !isOver { machine.lock.wait() }
      }
      let read: Result<[UInt8], BlockError>? = machine.answer {
        machine.disk.read(offset: 0, count: memory.bytes.count + 1024, completion: $0)
      }
      let bytes = try #require(try read?.get())
      let isWhole = bytes.dropFirst(512).dropLast(512).allSatisfy { $0 == turn }
      #expect(isWhole && bytes.first == 0 && bytes.last == 0)
    }
    machine.disk.close()
    try machine.bench.check("disk")
  }

  @Test("a write that is taken back, or beyond the end, writes nothing")
  func takenBack() throws {
    let machine = try Machine()
    let memory = PieceMemory(512)
    memory.fill(1)
    var (looked, completed) = (0, 0)
    machine.lock.withLock {
      machine.disk.write(
        offset: 0, count: 512,
        source: {
          looked += 1
          return nil
        }, completion: { _ in completed += 1 })
      while looked == 0 { machine.lock.wait() }
    }
    let beyond: Result<Void, BlockError>? = machine.answer { done in
      machine.disk.write(
        offset: 4 << 20, count: 512,
        source: {
          looked += 1
          return memory.reversed(piece: 512)
        }, completion: done)
    }
    #expect(throws: BlockError.self) { try beyond?.get() }
    machine.disk.close()
    #expect(looked == 1 && completed == 0)
    #expect(try machine.bench.contents("disk") == [UInt8](repeating: 0, count: 4 << 20))
  }

  @Test("what is beyond the end, or not a disk, is refused")
  func refusals() throws {
    let machine = try Machine()
    let beyond: Result<[UInt8], BlockError>? = machine.answer {
      machine.disk.read(offset: 4 << 20, count: 1, completion: $0)
    }
    guard case .failure(let error) = beyond else { throw ImageBench.Failure(description: "read") }
    #expect(error.kind == .outOfRange)
    let negative: Result<[UInt8], BlockError>? = machine.answer {
      machine.disk.read(offset: 0, count: -1, completion: $0)
    }
    #expect(throws: BlockError.self) { try negative?.get() }
    let zeroed: Result<Void, BlockError>? = machine.answer {
      machine.disk.writeZeroes(
        offset: 0, count: 4 << 20, mayDiscard: true, completion: $0)
    }
    try zeroed?.get()
    machine.disk.close()
    try machine.bench.directory.write([UInt8](repeating: 0, count: 4096), to: "raw")
    let raw = #expect(throws: DiskError.self) {
      try Qcow2Disk(
        path: machine.bench.path("raw"), isReadOnly: true, .none, deviceLock: { $0() })
    }
    #expect(raw?.kind == .notAnImage)
  }
}

import DeviceModel
import Disk
import LinuxSystem
import TestSupport
import Testing

@Suite("A disk with limits")
struct ThrottledDiskTests {
  private let image = JournalImage()
  private let clock = HandClock()

  private func disk(_ limits: DiskLimits) -> ThrottledDisk {
    ThrottledDisk(image, limits: limits, clock: clock, deviceLock: { $0() })
  }

  /// One request goes in 100 ms.
  private let slow = DiskLimits([.operations: .init(10)])

  private func read(_ disk: ThrottledDisk, _ offset: UInt64, count: Int = 512) {
    disk.read(offset: offset, count: count) { _ in }
  }

  private func write(_ disk: ThrottledDisk, _ offset: UInt64) {
    disk.write(offset: offset, bytes: [1]) { _ in }
  }

  @Test("without limits, all is passed on as it comes, and nothing wakes anybody")
  func unlimited() {
    let disk = disk(DiskLimits())
    for offset in 0..<100 { read(disk, UInt64(offset)) }
    #expect(image.take() == (0..<100).map { "read \($0)" })
    #expect(clock.nextDeadline == nil)
    disk.settle()
    disk.forget()
    #expect(image.take() == ["settle", "forget"])
  }

  @Test("requests go in their order, one after another when they are due")
  func order() {
    let disk = disk(slow)
    for offset in 0..<5 { read(disk, UInt64(offset)) }
    #expect(image.take() == ["read 0", "read 1"], "one more than is due in a tenth of a second")
    clock.pass(milliseconds: 99)
    #expect(image.take() == [])
    for offset in 2..<5 {
      clock.pass(milliseconds: 100)
      #expect(image.take() == ["read \(offset)"])
    }
    clock.pass(milliseconds: 1)
    #expect(clock.nextDeadline == nil)
  }

  @Test("each completes once, with what the image says")
  func completes() {
    let disk = disk(slow)
    var answers: [Int] = []
    for count in 1..<4 {
      disk.read(offset: 0, count: count) { answers.append((try? $0.get().count) ?? -1) }
    }
    image.complete()
    #expect(answers == [1, 2])
    clock.pass(milliseconds: 100)
    #expect(answers == [1, 2], "it has only begun")
    image.complete()
    #expect(answers == [1, 2, 3])
  }

  @Test("reads and writes take turns, however many of one kind there are")
  func turns() {
    let disk = disk(slow)
    for offset in 0..<6 { read(disk, UInt64(offset)) }
    for offset in 0..<3 { write(disk, UInt64(offset)) }
    _ = image.take()
    var order: [String] = []
    for _ in 0..<7 {
      clock.pass(milliseconds: 100)
      order += image.take()
    }
    #expect(
      order == ["write 0", "read 2", "write 1", "read 3", "write 2", "read 4", "read 5"])
  }

  @Test("writes that are limited hold no reads up")
  func directions() {
    let disk = disk(DiskLimits([.writes: .init(1)]))
    for offset in 0..<3 { write(disk, UInt64(offset)) }
    for offset in 0..<3 { read(disk, UInt64(offset)) }
    #expect(image.take() == ["write 0", "read 0", "read 1", "read 2"])
    clock.pass(milliseconds: 1000)
    #expect(image.take() == ["write 1"])
  }

  @Test("a flush comes after the writes before it and waits for nothing else")
  func flushes() {
    let disk = disk(slow)
    disk.flush { _ in }
    #expect(image.take() == ["flush"])
    write(disk, 0)
    write(disk, 1)
    disk.flush { _ in }
    #expect(image.take() == ["write 0", "write 1", "flush"])
    write(disk, 2)
    disk.flush { _ in }
    disk.flush { _ in }
    write(disk, 3)
    #expect(image.take() == [])
    clock.pass(milliseconds: 100)
    #expect(image.take() == ["write 2", "flush", "flush"])
  }

  @Test("clearing a range is an operation without bytes")
  func clearing() {
    var disk = disk(DiskLimits([.bytes: .init(512)]))
    write(disk, 0)
    for offset in 1..<9 {
      disk.discard(offset: UInt64(offset), count: 1 << 20) { _ in }
      disk.writeZeroes(offset: UInt64(offset), count: 1 << 20, mayDiscard: true) { _ in }
    }
    #expect(image.take().count == 17)
    disk = self.disk(slow)
    for offset in 0..<3 { disk.discard(offset: UInt64(offset), count: 1) { _ in } }
    disk.writeZeroes(offset: 3, count: 1, mayDiscard: false) { _ in }
    #expect(image.take() == ["discard 0", "discard 1"])
    clock.pass(milliseconds: 200)
    #expect(image.take() == ["discard 2", "zero 3"])
  }

  @Test("bytes where the guest has them are taken when the request goes, not before")
  func inPlace() {
    let disk = disk(slow)
    var taken = 0
    for _ in 0..<3 {
      disk.write(
        offset: 0, count: 1,
        source: {
          taken += 1
          return nil
        }, completion: { _ in })
    }
    #expect(taken == 2)
    clock.pass(milliseconds: 100)
    #expect(taken == 3)
  }

  @Test("a change is for those that wait already")
  func changes() {
    let disk = disk(DiskLimits([.operations: .init(1)]))
    for offset in 0..<200 { read(disk, UInt64(offset)) }
    #expect(image.take().count == 1)
    disk.limits = DiskLimits([.operations: .init(100)])
    clock.pass(milliseconds: 1000)
    #expect(99...112 ~= image.take().count)
    #expect(disk.limits == DiskLimits([.operations: .init(100)]))
    disk.limits = DiskLimits([.operations: .init(1)])
    _ = image.take()
    clock.pass(milliseconds: 10_000)
    #expect(9...11 ~= image.take().count)
    disk.limits = DiskLimits()
    #expect(image.take().last == "read 199")
    #expect(clock.nextDeadline == nil)
    read(disk, 200)
    #expect(image.take() == ["read 200"])
    disk.limits = slow
    for offset in 0..<3 { read(disk, UInt64(offset)) }
    #expect(image.take().count == 2)
  }

  @Test("what was taken back is not begun, and takes nobody's turn")
  func forgets() {
    let disk = disk(slow)
    for _ in 0..<1000 {
      read(disk, 0)
      write(disk, 0)
      disk.flush { _ in }
      disk.settle()
      disk.forget()
    }
    #expect(image.take().count { $0 != "settle" && $0 != "forget" } < 6)
    #expect(clock.nextDeadline == nil)
    clock.pass(milliseconds: 200)
    read(disk, 7)
    #expect(image.take() == ["read 7"])
  }

  @Test("all that waits is carried out when the disk is to be durable, and counts")
  func synchronizes() throws {
    let disk = disk(slow)
    for offset in 0..<5 { write(disk, UInt64(offset)) }
    disk.flush { _ in }
    read(disk, 9)
    _ = image.take()
    try disk.synchronize()
    #expect(
      image.take() == ["read 9", "write 2", "write 3", "write 4", "flush", "synchronize"])
    #expect(clock.nextDeadline == nil)
    read(disk, 10)
    clock.pass(milliseconds: 300)
    #expect(image.take() == [])
    clock.pass(milliseconds: 200)
    #expect(image.take() == ["read 10"])
  }

  @Test("and when it is closed, with what comes of that")
  func closes() {
    let disk = disk(slow)
    for offset in 0..<4 { write(disk, UInt64(offset)) }
    disk.close()
    #expect(image.take() == ["write 0", "write 1", "write 2", "write 3", "close"])
    write(disk, 4)
    #expect(image.take() == ["write 4"])
  }

  @Test("real requests through a real image come out whole")
  func wholeImage() throws {
    let directory = try TemporaryDirectory()
    let path = try directory.write([UInt8](repeating: 0, count: 64 << 10), to: "disk")
    let lock = Lock()
    let deviceLock: RawImage.DeviceLock = { body in
      lock.withLock {
        body()
        lock.wakeAll()
      }
    }
    let raw = try RawImage(
      path: path, use: .disk, isReadOnly: false, deviceLock: deviceLock)
    let disk = ThrottledDisk(
      raw, limits: DiskLimits([.operations: .init(1)]), clock: clock, deviceLock: deviceLock)
    var completed = 0
    lock.withLock {
      for sector in 0..<64 {
        disk.write(
          offset: UInt64(sector * 512), bytes: [UInt8](repeating: UInt8(sector), count: 512)
        ) { _ in completed += 1 }
      }
      while completed < 1 { lock.wait() }
      #expect(completed == 1)
    }
    try disk.synchronize()
    lock.withLock { while completed < 64 { lock.wait() } }
    disk.close()
    #expect(
      try directory.read("disk").prefix(32 << 10)
        == (0..<64).flatMap { [UInt8](repeating: UInt8($0), count: 512) }[...])
  }
}

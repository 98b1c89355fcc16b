import CNativeCode
import DeviceModel
import LinuxSystem
import Machine
import Snapshot
import TestSupport
import Testing

/// A host that protects no memory from writes has guests that write fast stand instead.
let protectsMemory =
  (try? WriteProtection(MemoryMapping(anonymous: 4096), isPrivate: true)) != nil

/// A guest that writes rounds of numbers to its pages faster than they can be copied, or in
/// which some were already written to by somebody else, for which it ends with '!'.
private struct WritingGuest {
  static let pages = 8192
  static let first = (16 << 20) / DirtyPages.pageSize

  let guest: TestGuest
  let machine: Machine
  let serial: String

  init() throws {
    guest = try TestGuest(.writing(pages: Self.pages)) { configuration, _ in
      configuration.memory = 64 << 20
    }
    machine = guest.machine
    serial = "serial"
    try machine.resume()
    try awaitRounds(2)
  }

  /// One that goes on.
  init(_ guest: TestGuest, _ serial: String, _ make: (MachineConfiguration) throws -> Machine)
    throws
  {
    self.guest = guest
    self.serial = serial
    var configuration = guest.machine.configuration
    configuration.serial = .file(guest.directory.path(serial))
    machine = try make(configuration)
    try machine.resume()
    try awaitRounds(3)
  }

  private var output: String {
    String(decoding: (try? guest.directory.read(serial)) ?? [], as: UTF8.self)
  }

  /// Waits until the guest has written to all its pages so many times more.
  func awaitRounds(_ count: Int) throws {
    let before = output.count
    try eventually("\(count) more rounds") {
      output.count >= before + count || output.contains("!")
    }
    #expect(output.allSatisfy { $0 == "." }, "\(output)")
  }

  func request(
    _ identifier: MachineUUID, base: MachineUUID? = nil, in directory: String? = nil
  ) -> SnapshotRequest {
    var request = SnapshotRequest(
      path: "\(directory ?? guest.directory.path)/\(identifier).snapshot", identifier: identifier,
      base: base, created: 1)
    request.pagesInPause = 64
    return request
  }

  /// The most that is copied while the guest stands.
  static let room = 64 * 2 + 64

  func open(_ identifier: MachineUUID) throws -> SnapshotChain {
    let chain = try SnapshotChain(path: request(identifier).path) { bytes in
      MachineUUID(bytes: bytes).map { request($0).path }
    }
    try chain.verify()
    return chain
  }

  /// The snapshot is of one instant: some pages have a round's number, and those after them
  /// that of the round before; and a machine goes on from it.
  func check(_ identifier: MachineUUID) throws {
    let chain = try open(identifier)
    let numbers = try chain.firstWords(Self.first..<Self.first + Self.pages)
    let rounds = numbers.first ?? 0
    #expect(rounds > 0)
    let steps = zip(numbers, numbers.dropFirst()).filter { $0 != $1 }
    #expect(steps.count <= 1 && (numbers.last == rounds || numbers.last == rounds - 1))
    let second = try WritingGuest(guest, "\(identifier)") {
      try Machine($0, from: try SavedMachine(chain))
    }
    second.machine.quit()
  }
}

extension GuestProgram {
  /// Writes rounds of numbers to so many pages; see WritingGuest.S.
  static func writing(pages: Int) -> GuestProgram {
    var program = GuestProgram(CGUEST_WRITING)
    program.set(word: UInt32(pages), at: 4)
    return program
  }

  private mutating func set(word value: UInt32, at place: Int) {
    var program = GuestProgram()
    for (index, byte) in bytes.enumerated() {
      let isInWord = (place..<place + 4).contains(index)
      program.emit(isInWord ? UInt8(truncatingIfNeeded: value >> (8 * (index - place))) : byte)
    }
    self = program
  }
}

extension SnapshotChain {
  /// The first word of each of these pages of RAM.
  fileprivate func firstWords(_ pages: Range<Int>) throws -> [UInt32] {
    var words = [UInt32](repeating: 0, count: pages.count)
    for part in parts(of: Machine.memoryName) ?? [] where part.pages.overlaps(pages) {
      for page in part.pages.clamped(to: pages) {
        var bytes: [UInt8] = [0, 0, 0, 0]
        let offset = part.offset + UInt64((page - part.pages.lowerBound) * DirtyPages.pageSize)
        try bytes.withUnsafeMutableBytes {
          _ = try part.file.descriptor.read(into: $0, offset: offset)
        }
        words[page - pages.lowerBound] = bytes.reversed().reduce(0) { $0 << 8 | UInt32($1) }
      }
    }
    return words
  }
}

@Suite(
  "Snapshots of guests that write faster than memory is copied", .needsKVM,
  .timeLimit(.minutes(10)))
struct WriteBehindTests {
  @Test(
    "are of one instant, with little copied while the guest stands; so are differences",
    .enabled(if: protectsMemory, "needs userfaultfd"))
  func instant() throws {
    let writing = try WritingGuest()
    var base: MachineUUID?
    var taken: [MachineUUID] = []
    for _ in 0..<3 {
      let identifier = MachineUUID.random()
      let report = try writing.machine.saveSnapshot(
        writing.request(identifier, base: base), beforeLast: { try writing.awaitRounds(1) })
      #expect(report.isDifferential == (base != nil))
      #expect(report.pagesBehind > 1000, "\(report)")
      #expect(report.pagesInPause <= WritingGuest.room, "\(report)")
      try writing.awaitRounds(2)
      taken.append(identifier)
      base = identifier
    }
    writing.machine.quit()
    for identifier in taken { try writing.check(identifier) }
  }

  @Test("a restored one, whose memory may not be protected, is stopped for moments, and the same")
  func restored() throws {
    let writing = try WritingGuest()
    let first = MachineUUID.random()
    try writing.machine.saveSnapshot(writing.request(first))
    writing.machine.quit()
    let second = try WritingGuest(writing.guest, "second") {
      try Machine($0, from: try SavedMachine(try writing.open(first)))
    }
    let identifier = MachineUUID.random()
    // More pages than the guest writes in one of the moments that it has.
    var request = second.request(identifier)
    request.pagesInPause = WritingGuest.pages / 4
    let report = try second.machine.saveSnapshot(
      request, beforeLast: { try second.awaitRounds(1) })
    #expect(report.pagesInPause <= WritingGuest.pages / 2 + 64, "\(report)")
    try second.awaitRounds(2)
    second.machine.quit()
    try second.check(identifier)
  }

  @Test(
    "a template's clone, whose memory is a private view, is saved the same way",
    .enabled(if: protectsMemory, "needs userfaultfd"))
  func clone() throws {
    let writing = try WritingGuest()
    let first = MachineUUID.random()
    try writing.machine.saveSnapshot(writing.request(first))
    writing.machine.quit()
    let template = try MachineTemplate(
      writing.guest.machine.configuration, from: try writing.open(first))
    let sums = try template.checksums()
    let clone = try WritingGuest(writing.guest, "clone") { try template.prepare().become($0) }
    let identifier = MachineUUID.random()
    let report = try clone.machine.saveSnapshot(
      clone.request(identifier), beforeLast: { try clone.awaitRounds(1) })
    #expect(report.pagesBehind > 1000, "\(report)")
    #expect(report.pagesInPause <= WritingGuest.room, "\(report)")
    try clone.awaitRounds(2)
    clone.machine.quit()
    try clone.check(identifier)
    #expect(try template.checksums() == sums)
  }

  @Test(
    "when the disk is full after the instant, the guest goes on, and can be saved elsewhere",
    .needsRoot)
  func full() throws {
    let writing = try WritingGuest()
    let disk = try SmallDisk(kibibytes: 128 << 10)
    let request = writing.request(.random(), in: disk.path)
    let error = #expect(throws: SnapshotError.self) {
      try writing.machine.saveSnapshot(
        request, beforeLast: { try writing.awaitRounds(1) },
        whenTaken: {
          // What it had room for already is taken away, too.
          _ = try? writing.guest.directory.run("fallocate -p -o 0 -l 100M \(request.path).new")
          try? disk.fill()
        })
    }
    #expect(error?.kind == .noSpace)
    #expect(!Files.exists(request.path) && !Files.exists("\(request.path).new"))
    try writing.awaitRounds(3)
    let (first, second) = (MachineUUID.random(), MachineUUID.random())
    try writing.machine.saveSnapshot(writing.request(first))
    try writing.machine.saveSnapshot(writing.request(second, base: first))
    writing.machine.quit()
    try writing.check(second)
  }

  @Test("one that is reset after the instant starts anew, and one that ended has its snapshot")
  func resetAndEnd() throws {
    let writing = try WritingGuest()
    let (first, second) = (MachineUUID.random(), MachineUUID.random())
    try writing.machine.saveSnapshot(
      writing.request(first), whenTaken: { try? writing.machine.reset() })
    // Its pages have numbers of the rounds before, with which it does not go on.
    try eventually("the guest to end") { writing.guest.output.contains("!") }
    try writing.check(first)
    let third = try WritingGuest(writing.guest, "third") {
      try Machine($0, from: try SavedMachine(try writing.open(first)))
    }
    try third.machine.saveSnapshot(
      third.request(second),
      whenTaken: { third.machine.quit() })
    #expect(third.machine.endReason == .quit)
    third.machine.tearDown()
    try third.check(second)
  }

  @Test("one that ends before the instant leaves no file, and one that is being saved no second")
  func endedBefore() throws {
    let writing = try WritingGuest()
    var second: SnapshotReport?
    let error = #expect(throws: MachineError.self) {
      try writing.machine.saveSnapshot(
        writing.request(.random()),
        beforeLast: {
          second = try? writing.machine.saveSnapshot(writing.request(.random()))
          writing.machine.quit()
        })
    }
    #expect(second == nil)
    #expect(error?.description.contains("over") == true)
    let files = try writing.guest.directory.run("ls").output
    #expect(!files.contains("snapshot"), "\(files)")
  }

  @Test("devices that write to memory, too, wait until it was copied")
  func devices() throws {
    let guest = try TestGuest(CountingGuest.program(.virtio)) { configuration, directory in
      let disk = try directory.write([UInt8](repeating: 0, count: 1 << 20), to: "disk")
      configuration.disks = [.init(path: disk, format: .raw, bus: .virtio)]
    }
    func awaitTurns(_ serial: String) throws {
      func text() -> String {
        String(decoding: (try? guest.directory.read(serial)) ?? [], as: UTF8.self)
      }
      let before = text().count
      try eventually("the guest to count on") {
        text().count >= before + 3 || text().contains { $0 != "." }
      }
      #expect(text().allSatisfy { $0 == "." }, "\(text())")
    }
    try guest.machine.resume()
    try awaitTurns("serial")
    let path = guest.directory.path("snapshot")
    var request = SnapshotRequest(
      path: path, identifier: .random(), created: 0,
      overlays: [.init(device: "virtio0", file: guest.directory.path("overlay"))])
    request.pagesInPause = 0
    try guest.machine.saveSnapshot(request)
    try awaitTurns("serial")
    guest.machine.tearDown()
    let chain = try SnapshotChain(path: path) { _ in nil }
    try chain.verify()
    var configuration = guest.machine.configuration
    configuration.disks[0].path = try guest.directory.write(
      try guest.directory.read("disk"), to: "copy")
    configuration.serial = .file(guest.directory.path("second"))
    let second = try Machine(configuration, from: try SavedMachine(chain))
    try second.resume()
    try awaitTurns("second")
    second.quit()
  }

  @Test("pages that the guest gives away after the instant are in it as they were")
  func released() throws {
    let rings: UInt32 = 0x30_0000
    let (list, count): (UInt32, UInt32) = (0x31_0000, 64)
    var program = GuestProgram()
    program.waitForSerial()
    program.findVirtio(slot: 15 << 3 | 3)
    program.startVirtio(rings: rings)
    for index in 0..<count { program.store(0x400 + index, at: list + index * 4) }
    program.describe([(list, count * 4, false)], rings: rings)
    program.emit(0x31, 0xF6)  // xor esi, esi
    let loop = program.bytes.count
    program.emit(0x46, 0xBF)  // inc esi; mov edi, 4 MiB
    program.emit(word: 0x40_0000)
    program.emit(0xB9)  // mov ecx, count
    program.emit(word: count)
    program.emit(0x89, 0x37, 0x81, 0xC7)  // mov [edi], esi; add edi, 4096
    program.emit(word: 4096)
    program.emit(0x49, 0x75, 0xF5)  // dec ecx; jnz
    program.port(0x3FD)
    program.emit(0xEC, 0xA8, 0x01)  // in al, dx; test al, 1
    program.jump(0x74, to: loop)
    program.notifyVirtio(number: 1, rings: rings)
    program.awaitUsed(number: 1, rings: rings)
    program.outByte(0x3F8, UInt8(ascii: "k"))
    program.stop()
    let guest = try TestGuest(program) { configuration, directory in
      configuration.serial = .socket(directory.path("serial"))
    }
    let peer = try SerialPeer(guest.machine.configuration)
    try peer.socket.send([1])
    try guest.machine.resume()
    let pages = 0x400..<0x400 + Int(count)
    func words() throws -> [UInt8] {
      try guest.machine.save().copiedMemory().map().withBytes { bytes in
        pages.map { bytes[$0 * DirtyPages.pageSize] }
      }
    }
    try eventually("rounds") { try words().allSatisfy { $0 > 0 } }
    let path = guest.directory.path("snapshot")
    var request = SnapshotRequest(path: path, identifier: .random(), created: 0)
    request.pagesInPause = 0
    var answer: [UInt8] = []
    try guest.machine.saveSnapshot(
      request,
      whenTaken: {
        _ = try? peer.socket.send([1])
        answer = (try? peer.read(1)) ?? []
      })
    #expect(answer == Array("k".utf8))
    #expect(try words().allSatisfy { $0 == 0 }, "they were given away")
    guest.machine.quit()
    let chain = try SnapshotChain(path: path) { _ in nil }
    try chain.verify()
    let numbers = try chain.firstWords(pages)
    let steps = zip(numbers, numbers.dropFirst()).filter { $0 != $1 }
    #expect(numbers.allSatisfy { $0 > 0 } && steps.count <= 1, "\(numbers)")
  }
}

@Suite("Protecting memory from writes", .enabled(if: protectsMemory, "needs userfaultfd"))
struct WriteProtectionTests {
  /// Writes to the first byte of a page, on a thread of its own.
  private func write(_ page: Int, of mapping: MemoryMapping) throws -> Thread {
    let address = UInt(bitPattern: mapping.bytes.baseAddress) + UInt(page * DirtyPages.pageSize)
    return try Thread(name: "writer") {
      UnsafeMutablePointer<UInt8>(bitPattern: address)?.pointee = 7
    }
  }

  private func awaitStopped(_ protection: WriteProtection) throws -> [Int] {
    let poller = try Poller()
    try poller.add(protection.descriptor, token: 0)
    _ = try poller.wait(milliseconds: 60_000)
    return protection.stoppedAt()
  }

  @Test("stops a writer at its page and no other, until that is allowed", arguments: [false, true])
  func stops(isPrivate: Bool) throws {
    let shared = try SharedMemory(name: "carrel-test", size: 16 * DirtyPages.pageSize)
    let mapping = try isPrivate ? MemoryMapping(anonymous: shared.size) : shared.map()
    let protection = try WriteProtection(mapping, isPrivate: isPrivate)
    // Never touched before.
    try protection.protect(4..<8)
    try write(3, of: mapping).join()
    try write(8, of: mapping).join()
    #expect(protection.stoppedAt().isEmpty)
    let writer = try write(5, of: mapping)
    #expect(try awaitStopped(protection) == [5])
    #expect(mapping.bytes[5 * DirtyPages.pageSize] == 0)
    protection.allow(5..<6)
    writer.join()
    #expect(mapping.bytes[5 * DirtyPages.pageSize] == 7)
    let second = try write(6, of: mapping)
    #expect(try awaitStopped(protection) == [6])
    protection.end()
    second.join()
    try write(7, of: mapping).join()
  }

  @Test("is of the whole memory again when it is over, and refused for a private view of a file")
  func refused() throws {
    let directory = try TemporaryDirectory()
    let path = try directory.write([UInt8](repeating: 1, count: 4 * DirtyPages.pageSize), to: "f")
    let mapping = try MemoryMapping(
      try FileDescriptor.open(path), offset: 0, size: 4 * DirtyPages.pageSize,
      access: .privateCopy)
    guard let protection = try? WriteProtection(mapping, isPrivate: true) else { return }
    // A directory in memory has files that are.
    try protection.protect(0..<4)
    let writer = try write(2, of: mapping)
    #expect(try awaitStopped(protection) == [2])
    protection.end()
    writer.join()
    #expect(try directory.read("f")[2 * DirtyPages.pageSize] == 1)
  }
}

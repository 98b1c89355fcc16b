import DeviceModel
import Devices
import Testing

@Suite("firmware configuration device")
struct FirmwareConfigurationTests {
  static var contents: FirmwareContents {
    var contents = FirmwareContents()
    contents.describeMemory(
      total: 0x800_0000,
      ranges: [
        MemoryRange(base: 0, size: 0x9FC00, kind: .ram),
        MemoryRange(base: 0x10_0000, size: 0x7F0_0000, kind: .ram),
      ])
    contents.describeProcessors(count: 2, maximum: 4)
    contents.describeBoot(order: ["/pci@i0cf8/ide@1,1/drive@0/disk@0"], menuWait: 1500)
    contents.addFile("opt/carrel/user", Array("ada".utf8))
    contents.addFile("etc/writable", [1, 2, 3, 4], isWritable: true)
    return contents
  }

  let memory: FakeMemory
  let ports = Bus(name: "port I/O")
  let device: FirmwareConfiguration

  init() throws {
    let memory = FakeMemory(size: 1 << 20)
    try self.init(
      FirmwareConfiguration(contents: Self.contents, memory: memory, state: nil), memory)
  }

  init(_ device: FirmwareConfiguration, _ memory: FakeMemory) throws {
    (self.device, self.memory) = (device, memory)
    try ports.map(device, name: "fw_cfg", at: 0x510, size: 12)
  }

  func select(_ key: UInt16) { ports.write(address: 0x510, width: 2, value: UInt64(key)) }

  func bytes(_ count: Int) -> [UInt8] {
    (0..<count).map { _ in UInt8(ports.read(address: 0x511, width: 1)) }
  }

  func item(_ key: UInt16, _ count: Int) -> [UInt8] {
    select(key)
    return bytes(count)
  }

  /// Name, size and key of each file, as a guest reads the directory.
  func directory() -> [(name: String, size: Int, key: UInt16)] {
    select(0x19)
    let count = bytes(4).reduce(0) { $0 << 8 | Int($1) }
    return (0..<count).map { _ in
      let entry = bytes(64)
      let name = String(decoding: entry[8...].prefix { $0 != 0 }, as: UTF8.self)
      let size = entry[0..<4].reduce(0) { $0 << 8 | Int($1) }
      return (name, size, UInt16(entry[4]) << 8 | UInt16(entry[5]))
    }
  }

  func key(_ name: String) -> UInt16 { directory().first { $0.name == name }?.key ?? 0xFFFF }

  /// Runs a DMA descriptor at 0x1000 and returns its control field afterwards.
  func transfer(control: UInt32, length: UInt32, address: UInt64, at descriptor: Int = 0x1000)
    -> UInt32
  {
    let fields = BigEndian.bytes(control) + BigEndian.bytes(length) + BigEndian.bytes(address)
    memory.bytes.replaceSubrange(descriptor..<descriptor + 16, with: fields)
    ports.write(address: 0x514, width: 4, value: 0)
    ports.write(address: 0x518, width: 4, value: UInt64(UInt32(descriptor).byteSwapped))
    return memory.bytes[descriptor..<descriptor + 4].reduce(0) { $0 << 8 | UInt32($1) }
  }

  @Test("the signature and the version with DMA are there")
  func signature() {
    #expect(item(0, 5) == Array("QEMU".utf8) + [0])
    #expect(item(1, 4) == [3, 0, 0, 0])
    #expect(ports.read(address: 0x514, width: 4) == UInt64(UInt32(0x5145_4D55).byteSwapped))
    #expect(ports.read(address: 0x518, width: 4) == UInt64(UInt32(0x2043_4647).byteSwapped))
  }

  @Test("memory, processors and boot menu are described as firmware reads them")
  func items() {
    #expect(item(3, 8) == [0, 0, 0, 8, 0, 0, 0, 0])
    #expect(item(5, 2) == [2, 0])
    #expect(item(0x0F, 2) == [4, 0])
    #expect(item(0x0E, 2) == [1, 0])
    let map = item(key("etc/e820"), 40)
    #expect(map[8..<20] == [0, 0xFC, 9, 0, 0, 0, 0, 0, 1, 0, 0, 0])
    #expect(item(key("etc/boot-menu-wait"), 2) == [0xDC, 0x05])
  }

  @Test("the directory lists files by name with their sizes")
  func files() {
    let entries = directory()
    #expect(
      entries.map(\.name) == [
        "bootorder", "etc/boot-menu-wait", "etc/e820", "etc/writable", "opt/carrel/user",
      ])
    #expect(entries.map(\.key) == Array(0x20..<0x25))
    #expect(entries.last?.size == 3)
    #expect(item(key("opt/carrel/user"), 4) == Array("ada".utf8) + [0])
  }

  @Test("items and files can be another machine's; what a guest selected is read on")
  func renewed() {
    struct Source: FirmwareFileSource {
      func contents(ofFirmwareFile name: String) -> [UInt8]? { Array("read again".utf8) }
    }
    let file = key("opt/carrel/user")
    select(file)
    _ = bytes(1)
    var changes = FirmwareContents()
    changes.setItem(2, [7, 7])
    changes.addFile("opt/carrel/user", Array("grace".utf8))
    changes.addFile("opt/none", [1])
    device.renew(changes, source: Source())
    #expect(bytes(4) == Array("race".utf8))
    #expect(item(2, 2) == [7, 7] && item(5, 2) == [2, 0])
    #expect(directory().map(\.name).contains("opt/none") == false)
    #expect(directory().last?.size == 5)
    changes.addFile("opt/carrel/user", [], isReread: true)
    device.renew(changes, source: Source())
    #expect(item(file, 10) == Array("read again".utf8))
    #expect(directory().last?.size == 10)
  }

  @Test("names that do not fit the directory are refused")
  func names() {
    var contents = FirmwareContents()
    let long = String(repeating: "x", count: 55)
    let names = ["", long + "x", "opt/ü", long]
    let taken = names.map { contents.addFile($0, []) }
    #expect(taken == [false, false, false, true])
  }

  @Test("DMA selects, reads and skips; past the end there are zeros")
  func dma() {
    let key = UInt32(key("opt/carrel/user"))
    #expect(transfer(control: key << 16 | 0x0A, length: 6, address: 0x2000) == 0)
    #expect(Array(memory.bytes[0x2000..<0x2006]) == Array("ada".utf8) + [0, 0, 0])
    #expect(transfer(control: key << 16 | 0x0C, length: 2, address: 0) == 0)
    #expect(transfer(control: 0x02, length: 1, address: 0x2010) == 0)
    #expect(memory.bytes[0x2010] == UInt8(ascii: "a"))
  }

  @Test("a port read goes on where DMA stopped")
  func mixed() {
    let key = UInt32(key("opt/carrel/user"))
    #expect(transfer(control: key << 16 | 0x0A, length: 1, address: 0x2000) == 0)
    #expect(bytes(2) == Array("da".utf8))
  }

  @Test("writable files take writes within their size, others none")
  func writing() {
    var written: [String] = []
    device.onWrite = { written.append($0) }
    memory.bytes.replaceSubrange(0x3000..<0x3002, with: [9, 8])
    let key = UInt32(key("etc/writable"))
    #expect(transfer(control: key << 16 | 0x18, length: 2, address: 0x3000) == 0)
    #expect(device.contents(of: "etc/writable") == [9, 8, 3, 4])
    #expect(transfer(control: 0x10, length: 3, address: 0x3000) == 1)
    let other = UInt32(self.key("opt/carrel/user"))
    #expect(transfer(control: other << 16 | 0x18, length: 1, address: 0x3000) == 1)
    #expect(written == ["etc/writable"])
  }

  @Test("descriptors that point outside RAM end in the error bit or in nothing")
  func hostileDMA() {
    #expect(transfer(control: 0x0A, length: 0xFFFF_FFFF, address: 0) == 1)
    #expect(transfer(control: 0x0A, length: 16, address: .max - 3) == 1)
    #expect(transfer(control: 0x0A, length: 16, address: 1 << 40) == 1)
    ports.write(address: 0x514, width: 4, value: 0xFFFF_FFFF)
    ports.write(address: 0x518, width: 4, value: 0xFFFF_FFFF)
    #expect(transfer(control: 0x04, length: 0xFFFF_FFFF, address: 0) == 0)
    #expect(transfer(control: 0x02, length: 4, address: 0x2000) == 0)
  }

  @Test("an unknown item reads as zeros")
  func unknown() {
    #expect(item(0x7FFF, 3) == [0, 0, 0])
    #expect(item(0xFFFF, 3) == [0, 0, 0])
  }

  @Test("a copy made in the middle of an item reads the rest of it")
  func restore() {
    select(key("opt/carrel/user"))
    _ = bytes(1)
    memory.bytes.replaceSubrange(0x3000..<0x3001, with: [7])
    let copy = FirmwareConfiguration(
      contents: Self.contents, memory: memory, state: device.saveState())
    #expect(copy.read(offset: 1, width: 1) == UInt64(UInt8(ascii: "d")))
  }

  /// A device with a user's name that `source` gives.
  func rereading(_ source: ChangingFile, state: FirmwareConfiguration.State? = nil) throws
    -> FirmwareConfiguration
  {
    var contents = FirmwareContents()
    contents.addFile("opt/carrel/user", Array("guest".utf8), isReread: true)
    contents.addFile("opt/fixed", [1, 2, 3])
    return FirmwareConfiguration(
      contents: contents, memory: memory, source: source, state: state)
  }

  @Test("a file that changed is seen with its size when the directory or the file is selected")
  func rereadFiles() throws {
    let source = ChangingFile()
    let test = try Self(try rereading(source), memory)
    #expect(test.directory().map(\.size) == [5, 3])
    source.contents = Array("Grace Hopper".utf8)
    #expect(test.directory().map(\.size) == [12, 3])
    let key = test.key("opt/carrel/user")
    #expect(test.item(key, 13) == Array("Grace Hopper".utf8) + [0])
    source.contents = Array("ada".utf8)
    #expect(test.item(key, 6) == Array("ada".utf8) + [0, 0, 0])
    #expect(test.directory().map(\.size) == [3, 3])
    source.contents = Array("Alan".utf8)
    #expect(test.transfer(control: UInt32(key) << 16 | 0x0A, length: 5, address: 0x2000) == 0)
    #expect(Array(test.memory.bytes[0x2000..<0x2005]) == Array("Alan".utf8) + [0])
    #expect(source.asked.allSatisfy { $0 == "opt/carrel/user" })
  }

  @Test("a file is of one piece between two selections")
  func onePiece() throws {
    let source = ChangingFile()
    let test = try Self(try rereading(source), memory)
    let key = test.key("opt/carrel/user")
    source.contents = Array("first".utf8)
    #expect(test.item(key, 2) == Array("fi".utf8))
    source.contents = Array("SECOND".utf8)
    #expect(test.bytes(4) == Array("rst".utf8) + [0])
  }

  @Test("a file that vanished or grew too large leaves what was there")
  func rereadFailures() throws {
    let source = ChangingFile()
    let test = try Self(try rereading(source), memory)
    let key = test.key("opt/carrel/user")
    source.contents = Array("ada".utf8)
    #expect(test.item(key, 3) == Array("ada".utf8))
    source.contents = nil
    #expect(test.item(key, 4) == Array("ada".utf8) + [0])
    source.contents = [UInt8](repeating: 7, count: FirmwareContents.maximumRereadSize + 1)
    #expect(test.item(key, 4) == Array("ada".utf8) + [0])
    source.contents = [UInt8](repeating: 7, count: FirmwareContents.maximumRereadSize)
    #expect(test.item(key, 4) == [7, 7, 7, 7])
  }

  @Test("what was read again is saved, and a copy reads the rest of it")
  func rereadRestore() throws {
    let source = ChangingFile()
    let device = try rereading(source)
    let test = try Self(device, memory)
    source.contents = Array("Grace".utf8)
    let key = test.key("opt/carrel/user")
    #expect(test.item(key, 1) == Array("G".utf8))
    source.contents = nil
    let copy = try Self(try rereading(source, state: device.saveState()), memory)
    #expect(copy.bytes(5) == Array("race".utf8) + [0])
    #expect(copy.directory().map(\.size) == [5, 3])
  }

  @Test("the fuzz driver reaches the writable file")
  func fuzzDriver() {
    // Select file 0x20 and write 2 bytes of it from address 0x200.
    #expect(FirmwareFuzzing.run([4, 0x20, 0x18, 0, 2, 2, 0]) == 1)
  }

  @Test("random port traffic never stops the device")
  func randomTraffic() {
    var generator = SystemRandomNumberGenerator()
    let program = (0..<60_000).map { _ in UInt8.random(in: 0...255, using: &generator) }
    FirmwareFuzzing.run(program)
  }
}

/// A file that somebody changes while the machine runs.
final class ChangingFile: FirmwareFileSource {
  var contents: [UInt8]?
  private(set) var asked: [String] = []

  func contents(ofFirmwareFile name: String) -> [UInt8]? {
    asked.append(name)
    return contents
  }
}

/// A kernel as Linux's build makes it for boot loaders (bzImage): a setup header in code for
/// real mode, which needs firmware and is not used without, and the protected-mode kernel
/// (Linux, Documentation/arch/x86/boot.rst).
struct LinuxImage: KernelImage {
  let path: String
  /// The setup header, from offset 0x1F1 of the file to its end.
  let header: [UInt8]
  /// The code for real mode, the boot sector and so the header included.
  let setup: [UInt8]
  private let file: BootFile
  /// Where in it the protected-mode kernel begins, which is the rest.
  private let kernelStart: Int
  /// Where the kernel is put when it is entered without firmware (below 1 MiB when it
  /// cannot be), and the memory that it uses from there on before it knows of any other.
  let loadAddress: UInt64
  let runtimeSize: UInt64
  /// Whether it may be entered in long mode, at `loadAddress` + 0x200.
  let has64BitEntry: Bool
  /// The last byte that an initial RAM disk may have.
  let ramDiskLimit: UInt64
  /// Longest command line, without its end.
  let commandLineLimit: Int

  /// Offsets in the file, and the protocol version that brought each.
  private enum Field {
    static let start = 0x1F1
    static let setupSectors = 0x1F1
    static let bootFlag = 0x1FE
    static let jump = 0x201
    static let magic = 0x202
    static let version = 0x206
    static let loadFlags = 0x211
    static let code32Start = 0x214
    static let ramDiskMaximum = (0x22C, 0x0203)
    static let relocatable = (0x234, 0x0205)
    static let longFlags = (0x236, 0x020C)
    static let commandLineSize = (0x238, 0x0206)
    static let preferredAddress = (0x258, 0x020A)
    static let initialSize = (0x260, 0x020A)
  }

  /// Whether a file is of this kind, whatever else is wrong with it.
  static func isOne(_ bytes: [UInt8]) -> Bool {
    bytes.count >= Field.version + 2 && bytes[Field.bootFlag] == 0x55
      && bytes[Field.bootFlag + 1] == 0xAA
      && bytes[Field.magic..<Field.magic + 4].elementsEqual("HdrS".utf8)
  }

  /// - Parameter bytes: all of `file`.
  init(path: String, _ file: BootFile, _ bytes: [UInt8]) throws(MachineError) {
    self.path = path
    self.file = file
    func number(_ offset: Int, _ count: Int) -> UInt64 {
      guard offset + count <= bytes.count else { return 0 }
      return (0..<count).reduce(0) { $0 | UInt64(bytes[offset + $1]) << UInt64($1 * 8) }
    }
    func problem(_ text: String) -> MachineError {
      MachineError(.image, "\(path) is no Linux kernel that can be started: \(text)")
    }
    let version = Int(number(Field.version, 2))
    guard version >= 0x0202, number(Field.loadFlags, 1) & 1 != 0 else {
      throw problem(
        "boot protocol \(version >> 8).\(version & 0xFF), or not loaded high (a zImage); 2.2 and"
          + " LOADED_HIGH are needed")
    }
    func field(_ place: (offset: Int, since: Int), _ count: Int) -> UInt64? {
      version >= place.since ? number(place.offset, count) : nil
    }
    let sectors = number(Field.setupSectors, 1)
    let start = (Int(sectors == 0 ? 4 : sectors) + 1) * 512
    guard start < bytes.count else {
      throw problem("setup_sects says \(sectors), which is beyond the file of \(bytes.count) bytes")
    }
    let end = Field.magic + Int(number(Field.jump, 1))
    guard end > Field.version, end <= start else {
      throw problem("the setup header ends at \(hexadecimal(end))")
    }
    header = Array(bytes[Field.start..<end])
    setup = Array(bytes[..<start])
    kernelStart = start
    let kernelSize = bytes.count - start
    let isRelocatable = field(Field.relocatable, 1) == 1
    let preferred = field(Field.preferredAddress, 8) ?? 0
    let fixed = number(Field.code32Start, 4)
    loadAddress = isRelocatable && preferred != 0 ? preferred : fixed
    guard loadAddress < PhysicalMap.lowLimit else {
      throw problem("it wants to lie at \(hexadecimal(loadAddress)), where there is never RAM")
    }
    runtimeSize = max(field(Field.initialSize, 4) ?? 0, UInt64(kernelSize))
    has64BitEntry = (field(Field.longFlags, 2) ?? 0) & 1 != 0 && kernelSize > 0x200
    ramDiskLimit = field(Field.ramDiskMaximum, 4) ?? 0x37FF_FFFF
    commandLineLimit = Int(field(Field.commandLineSize, 4) ?? 255)
  }

  /// The "zero page" with the header in its place.
  var bootParameters: [UInt8] {
    var page = [UInt8](repeating: 0, count: 4096)
    let end = min(Field.start + header.count, 0x290)
    page.replaceSubrange(Field.start..<end, with: header.prefix(end - Field.start))
    return page
  }
}

extension LinuxImage {
  var start: KernelStart? {
    guard loadAddress >= PhysicalMap.shadowEnd else { return nil }
    return has64BitEntry
      ? .linux64(loadAddress + 0x200) : .linux32(UInt32(truncatingIfNeeded: loadAddress))
  }

  var occupied: [(address: UInt64, size: UInt64)] { [(loadAddress, runtimeSize)] }

  /// The protected-mode kernel.
  func kernel() throws(MachineError) -> ArraySlice<UInt8> {
    try file.bytes().dropFirst(kernelStart)
  }

  func load(into memory: some BootMemory) throws -> UInt64 {
    guard let target = memory.bytes(at: loadAddress, count: Int(clamping: runtimeSize)) else {
      throw MachineError(
        .image,
        "\(path) needs \(runtimeSize >> 20) MiB at \(hexadecimal(loadAddress)), which"
          + " \(memory.layout.total >> 20) MiB of memory do not have; give the machine more")
    }
    // SAFETY: the kernel uses at least as much memory as there is of it in the file.
    let part = UnsafeMutableRawBufferPointer(rebasing: target[..<(file.count - kernelStart)])
    try file.read(into: part, at: kernelStart)
    return loadAddress + runtimeSize
  }
}

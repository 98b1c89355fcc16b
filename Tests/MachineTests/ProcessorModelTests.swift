import Machine
import Testing

@Suite("Processor models")
struct ProcessorModelTests {
  /// A host that offers everything there is a bit for.
  static func host(vendor: (UInt32, UInt32, UInt32) = intel) -> [CPUIDLeaf] {
    let (b, c, d) = vendor
    var leaves = [
      CPUIDLeaf(0, eax: 0x1F, ebx: b, ecx: c, edx: d), CPUIDLeaf(1, eax: 0x306C3),
      CPUIDLeaf(4, index: 0, eax: 0x121), CPUIDLeaf(4, index: 3, eax: 0x163),
      CPUIDLeaf(7, index: 0, eax: 1), CPUIDLeaf(7, index: 1), CPUIDLeaf(0xB, index: 0),
      CPUIDLeaf(0xD, index: 0, eax: 7), CPUIDLeaf(0xD, index: 1), CPUIDLeaf(0x1F, index: 0),
      CPUIDLeaf(0x4000_0001), CPUIDLeaf(0x8000_0000, eax: 0x8000_0021),
      CPUIDLeaf(0x8000_0001), CPUIDLeaf(0x8000_0008, eax: 0x3030),
      CPUIDLeaf(0x8000_001D, index: 3, eax: 0x163), CPUIDLeaf(0x8000_001E),
    ]
    for word in CPUFeatureWord.all {
      for index in leaves.indices
      where leaves[index].function == word.function && leaves[index].index == word.index {
        leaves[index][word.register] = .max
      }
    }
    return leaves
  }

  static let intel: (UInt32, UInt32, UInt32) = (0x756E_6547, 0x6C65_746E, 0x4965_6E69)
  static let amd: (UInt32, UInt32, UInt32) = (0x6874_7541, 0x444D_4163, 0x6974_6E65)

  static func without(_ bits: [(UInt32, CPUIDLeaf.Register, UInt32)]) -> [CPUIDLeaf] {
    host().map { leaf in
      var leaf = leaf
      for (function, register, bit) in bits where leaf.function == function && leaf.index == 0 {
        leaf[register] &= ~(1 << bit)
      }
      return leaf
    }
  }

  @Test("the vendor is read from leaf 0")
  func vendor() {
    #expect(Self.host().vendor == "GenuineIntel")
    #expect(Self.host(vendor: Self.amd).vendor == "AuthenticAMD")
  }

  @Test("what the host offers is what the guest gets, bit by bit")
  func hostPolicy() throws {
    let model = try ProcessorModel(.host, offered: Self.host())
    #expect(model.leaves == Self.host())
  }

  @Test(
    "a baseline is the same whatever else its host offers",
    arguments: CPUBaseline.allCases)
  func baseline(_ baseline: CPUBaseline) throws {
    let rich = try ProcessorModel(.baseline(baseline), offered: Self.host())
    // Without AVX-512, SMAP, AES, RDRAND, SVM.
    let poor = try ProcessorModel(
      .baseline(baseline),
      offered: Self.without([
        (7, .ebx, 16), (7, .ebx, 20), (1, .ecx, 25), (1, .ecx, 30), (0x8000_0001, .ecx, 2),
      ]))
    #expect(rich.leaves == poor.leaves)
    #expect(rich.leaves.first(0x8000_0002)?.eax == 0x7272_6143, "its name begins with Carr")
  }

  @Test("x86-64-v2 has exactly the bits of that level")
  func secondLevel() throws {
    let leaves = try ProcessorModel(.baseline(.v2), offered: Self.host()).leaves
    let basic = try #require(leaves.first(1))
    // SSE3, SSSE3, CX16, SSE4.1, SSE4.2, x2APIC, POPCNT, TSC deadline, hypervisor.
    #expect(basic.ecx == 0x81B8_2201)
    #expect(basic.edx == 0x078B_FBFF)
    let structured = try #require(leaves.first(7))
    #expect(structured.ebx == 0 && structured.ecx == 0 && structured.edx == 0)
    #expect(leaves.first(0x8000_0001)?.ecx == 1)
    #expect(leaves.first(0xD) == nil)
  }

  @Test("x86-64-v3 adds AVX2 and its companions, with the state they need")
  func thirdLevel() throws {
    let leaves = try ProcessorModel(.baseline(.v3), offered: Self.host()).leaves
    let basic = try #require(leaves.first(1))
    #expect(basic.ecx & (1 << 12 | 1 << 22 | 1 << 26 | 1 << 28 | 1 << 29) == 0x3440_1000)
    #expect(leaves.first(7)?.ebx == 1 << 3 | 1 << 5 | 1 << 8)
    #expect(leaves.first(0x8000_0001)?.ecx == UInt32(0x21))
    #expect(leaves.first(0xD)?.eax == 7 && leaves.first(0xD)?.ecx == 832)
    #expect(leaves.first(0xD, index: 2)?.ebx == 576)
  }

  @Test(
    "a host that lacks a feature of the baseline is refused, with the feature's name",
    arguments: [
      (.v1, 1, .edx, 26, "sse2"), (.v2, 1, .ecx, 23, "popcnt"), (.v3, 7, .ebx, 5, "avx2"),
      (.v3, 0x8000_0001, .ecx, 5, "abm"), (.v1, 0x4000_0001, .eax, 5, "kvm_steal_time"),
    ] as [(CPUBaseline, UInt32, CPUIDLeaf.Register, UInt32, String)])
  func lacking(
    baseline: CPUBaseline, function: UInt32, register: CPUIDLeaf.Register, bit: UInt32,
    name: String
  ) throws {
    let offered = Self.without([(function, register, bit)])
    let error = #expect(throws: MachineError.self) {
      try ProcessorModel(.baseline(baseline), offered: offered)
    }
    #expect(error?.kind == .host)
    #expect(error?.problem.hasSuffix("lacks \(name)") == true, "\(String(describing: error))")
  }

  @Test("processors are cores of one package", arguments: [1, 2, 3, 64])
  func topology(count: Int) throws {
    let model = try ProcessorModel(.host, offered: Self.host())
    let last = count - 1
    let leaves = model.leaves(processor: last, of: count)
    let bits = UInt32([1: 0, 2: 1, 3: 2, 64: 6][count] ?? 0)
    let basic = try #require(leaves.first(1))
    #expect(basic.ebx >> 24 == last && basic.ebx >> 16 & 0xFF == count)
    #expect(basic.edx >> 28 & 1 == (count > 1 ? 1 : 0))
    let first = try #require(leaves.first(4))
    #expect(first.eax & 0x3FFF == 0x121 && first.eax >> 26 == (1 << bits) - 1)
    #expect(first.eax >> 14 & 0xFFF == 0)
    let third = try #require(leaves.first(4, index: 3))
    #expect(third.eax >> 14 & 0xFFF == (1 << bits) - 1, "the package's cache is shared by all")
    #expect(third.eax >> 26 == (1 << bits) - 1)
    let threads = try #require(leaves.first(0xB))
    #expect(threads.eax == 0 && threads.ebx == 1 && threads.ecx == 0x100)
    let cores = try #require(leaves.first(0xB, index: 1))
    #expect(cores.eax == bits && cores.ebx == count && cores.ecx == 0x201)
    #expect(leaves.filter { $0.function == 0xB }.allSatisfy { $0.edx == last })
    #expect(leaves.filter { $0.function == 0xB }.count == 3)
    #expect(!leaves.contains { $0.function == 0x1F })
    let identifiers = (0..<count).compactMap {
      model.leaves(processor: $0, of: count).first(1).map { $0.ebx >> 24 }
    }
    #expect(Set(identifiers).count == count)
  }

  @Test("AMD's own leaves tell the same topology")
  func legacyTopology() throws {
    let model = try ProcessorModel(.host, offered: Self.host(vendor: Self.amd))
    let leaves = model.leaves(processor: 5, of: 6)
    #expect(leaves.first(0x8000_0001).map { $0.ecx >> 1 & 1 } == 1)
    #expect(leaves.first(0x8000_0008)?.ecx == 0x3005)
    #expect(leaves.first(0x8000_001D, index: 3).map { $0.eax >> 14 & 0xFFF } == 5)
    let place = try #require(leaves.first(0x8000_001E))
    #expect(place.eax == 5 && place.ebx == 5 && place.ecx == 0)
    let alone = model.leaves(processor: 0, of: 1)
    #expect(alone.first(0x8000_0001).map { $0.ecx >> 1 & 1 } == 0)
  }

  @Test("the TSC deadline is offered where KVM has it, hypercalls not to interpreted guests")
  func offered() throws {
    var bare = Self.host()
    for index in bare.indices where bare[index].function == 1 { bare[index].ecx = 0 }
    func basic(_ deadline: Bool) -> UInt32? {
      ProcessorModel.offered(bare, hasDeadlineTimer: deadline, isInterpreted: false).first(1)?.ecx
    }
    #expect(basic(true) == 1 << 31 | 1 << 24)
    #expect(basic(false) == 1 << 31)
    let native = ProcessorModel.offered(
      Self.host(), hasDeadlineTimer: true, isInterpreted: false)
    #expect(native == Self.host())
    // A time stamp counter that is invariant on the host is none for who goes on elsewhere.
    let clocks = ProcessorModel.offered(
      [CPUIDLeaf(0x8000_0007, edx: 0x1F8)], hasDeadlineTimer: true, isInterpreted: false)
    #expect(clocks == [CPUIDLeaf(0x8000_0007, edx: 0xF8)])
    let interpreted = ProcessorModel.offered(
      Self.host(), hasDeadlineTimer: true, isInterpreted: true)
    let clock = try #require(interpreted.first(0x4000_0001)).eax
    #expect(clock & (1 << 7 | 1 << 11 | 1 << 13 | 1 << 16) == 0)
    #expect(clock & (1 << 0 | 1 << 3 | 1 << 5 | 1 << 6 | 1 << 24) == 0x0100_0069)
    #expect(interpreted.first(1).map { $0.ecx >> 23 & 1 } == 0)
    #expect(interpreted.first(0xD) == nil)
  }

  @Test("a saved processor goes on as it was on a host that offers more")
  func restored() throws {
    let saved = try ProcessorModel(.host, offered: Self.without([(7, .ebx, 5)])).saveState()
    let model = try ProcessorModel(.host, offered: Self.host(), saved: saved)
    #expect(model.leaves == saved.leaves)
  }

  @Test("a saved processor is refused by a host that lacks something, which is named")
  func notRestored() throws {
    let saved = try ProcessorModel(.host, offered: Self.host()).saveState()
    let lacking = #expect(throws: MachineError.self) {
      try ProcessorModel(
        .host, offered: Self.without([(7, .ebx, 5), (1, .ecx, 25)]), saved: saved)
    }
    #expect(lacking?.kind == .state)
    #expect(lacking?.problem.hasSuffix("lacks: aes, avx2") == true)
    let foreign = #expect(throws: MachineError.self) {
      try ProcessorModel(.host, offered: Self.host(vendor: Self.amd), saved: saved)
    }
    #expect(foreign?.problem.contains("GenuineIntel, this host of AuthenticAMD") == true)
    let other = #expect(throws: MachineError.self) {
      try ProcessorModel(.baseline(.v1), offered: Self.host(), saved: saved)
    }
    #expect(other?.problem.contains("\"host\", not \"x86-64-v1\"") == true)
  }

  @Test("policies have names, and no others are known")
  func names() {
    for name in ["host", "x86-64-v1", "x86-64-v2", "x86-64-v3"] {
      #expect(MachineConfiguration.ProcessorPolicy(name)?.description == name)
    }
    #expect(MachineConfiguration.ProcessorPolicy("x86-64-v4") == nil)
  }
}

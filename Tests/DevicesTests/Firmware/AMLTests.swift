import Devices
import TestSupport
import Testing

@Suite("AML builder")
struct AMLTests {
  @Test(
    "integers take the shortest form",
    arguments: [
      (0, [0]), (1, [1]), (2, [0x0A, 2]), (0xFF, [0x0A, 0xFF]), (0x100, [0x0B, 0, 1]),
      (0xFFFF, [0x0B, 0xFF, 0xFF]), (0x1_0000, [0x0C, 0, 0, 1, 0]),
      (0xFFFF_FFFF, [0x0C, 0xFF, 0xFF, 0xFF, 0xFF]),
    ] as [(UInt32, [UInt8])])
  func integers(value: UInt32, bytes: [UInt8]) {
    #expect(AML.integer(value) == bytes)
  }

  @Test("an integer to be changed in place always has 32 bits")
  func wideInteger() {
    #expect(AML.wideInteger(1) == [0x0C, 1, 0, 0, 0])
  }

  @Test("names are padded, joined and rooted")
  func names() {
    #expect(AML.reference("ABC") == Array("ABC_".utf8))
    #expect(AML.reference("\\_SB") == Array("\\_SB_".utf8))
    #expect(AML.reference("\\_SB.VGEN") == [0x5C, 0x2E] + Array("_SB_VGEN".utf8))
    #expect(AML.reference("A.B.C") == [0x2F, 3] + Array("A___B___C___".utf8))
  }

  @Test("strings end at what is not ASCII")
  func strings() {
    #expect(AML.string("ab") == [0x0D, 0x61, 0x62, 0])
    #expect(AML.string("aé") == [0x0D, 0x61, 0])
    #expect(AML.string("a\0b") == [0x0D, 0x61, 0])
  }

  @Test(
    "a length counts itself, in as many bytes as it needs",
    arguments: [(1, 1), (58, 1), (59, 2), (4089, 2), (4090, 3), (70_000, 3)])
  func lengths(contents: Int, width: Int) {
    // A scope: opcode, length, a name of four bytes, contents.
    let bytes = AML.scope("ABCD", [[UInt8](repeating: 0, count: contents)])
    #expect(bytes.count == 1 + width + 4 + contents)
    let extra = Int(bytes[1] >> 6)
    #expect(extra == width - 1)
    var length = Int(bytes[1] & (extra == 0 ? 0x3F : 0x0F))
    for index in 0..<extra { length |= Int(bytes[2 + index]) << (4 + 8 * index) }
    #expect(length == bytes.count - 1)
  }

  @Test("identifiers of Plug and Play are compressed as the specification's example")
  func identifiers() {
    #expect(AML.eisaID("PNP0A03") == [0x0C, 0x41, 0xD0, 0x0A, 0x03])
    #expect(AML.eisaID("short") == [0])
  }

  @Test("terms have the opcodes of chapter 20")
  func terms() {
    #expect(
      AML.method("ADDR", [AML.returning(AML.integer(0))])
        == [0x14, 0x08] + Array("ADDR".utf8) + [0x00, 0xA4, 0x00])
    #expect(AML.notify("AB", 0x80) == [0x86] + Array("AB__".utf8) + [0x0A, 0x80])
    #expect(AML.sum([0], [1]) == [0x72, 0, 1, 0])
    #expect(
      AML.store([1], AML.element(0, of: AML.local(1)))
        == [0x70, 1, 0x88, 0x61, 0, 0])
  }
}

import LinuxSystem
import TestSupport
import Testing

@Suite("Disk images from the command line", .needs("qemu-img"), .needsKVM)
struct DiskToolTests {
  private let directory: TemporaryDirectory

  init() throws { directory = try TemporaryDirectory() }

  @discardableResult
  private func disk(_ arguments: String, fails: Bool = false) throws -> String {
    let (status, output) = try directory.run(
      "cd \(directory.path) && timeout 60 \(Programs.built("carrel-vmm")) disk \(arguments)")
    #expect((status != 0) == fails, "disk \(arguments): \(output)")
    return output
  }

  private func shell(_ command: String) throws -> String {
    let (status, output) = try directory.run("cd \(directory.path) && \(command)")
    #expect(status == 0, "\(command): \(output)")
    return output
  }

  @Test("are made, based on each other, moved to another base, committed and flattened")
  func chain() throws {
    _ = try shell("head -c 1048576 /dev/urandom > base.raw")
    try disk("create --over raw:base.raw a.qcow2")
    try disk("create --over qcow2:a.qcow2 --cluster-size 4096 b.qcow2")
    _ = try shell(
      "qemu-io -c 'write -P 1 64k 8k' a.qcow2 && qemu-io -c 'write -P 2 68k 8k' b.qcow2")
    _ = try shell("qemu-img convert -O raw b.qcow2 expected.raw")
    func compare() throws {
      #expect(try shell("qemu-img compare b.qcow2 expected.raw").contains("identical"))
      #expect(try disk("check b.qcow2").contains("b.qcow2 is sound"))
    }
    let info = try disk("info b.qcow2 --json")
    for name in ["b.qcow2", "a.qcow2", "base.raw"] { #expect(info.contains(name)) }
    #expect(try disk("info b.qcow2").contains("   └─ "))

    try disk("rebase --onto raw:base.raw b.qcow2")
    _ = try shell("rm a.qcow2")
    try compare()
    try disk("flatten b.qcow2")
    _ = try shell("mv base.raw away.raw")
    try compare()
    #expect(try !disk("info b.qcow2 --json").contains("base.raw"))

    try disk("create --over qcow2:b.qcow2 c.qcow2")
    _ = try shell(
      "qemu-io -c 'write -P 3 0 4k' c.qcow2 && qemu-io -c 'write -P 3 0 4k' -f raw expected.raw")
    try disk("commit c.qcow2")
    try compare()
    _ = try shell("mv b.qcow2 d.qcow2")
    try disk("rebase --unsafe --onto qcow2:d.qcow2 c.qcow2")
    #expect(try shell("qemu-img compare c.qcow2 expected.raw").contains("identical"))
  }

  @Test(
    "are copied, compressed, and from internal snapshots", arguments: ["", "zlib", "zstd"])
  func copies(compression: String) throws {
    _ = try shell(
      """
      seq 1 200000 | head -c 1048576 > base.raw
      qemu-img create -q -f qcow2 -b base.raw -F raw -o cluster_size=4k a.qcow2 3M
      qemu-io -c 'write -q -P 1 64k 8k' -c 'write -q -z 256k 64k' a.qcow2
      qemu-img snapshot -c first a.qcow2
      qemu-io -c 'write -q -P 2 0 2M' a.qcow2
      qemu-img snapshot -c second a.qcow2
      qemu-io -c 'write -q -P 3 68k 8k' a.qcow2
      """)
    let info = try disk("info a.qcow2")
    #expect(info.contains("snapshot 1: first, 3145728 bytes"), "\(info)")
    #expect(try disk("info a.qcow2 --json").contains("\"name\": \"second\""))
    let compress = compression.isEmpty ? "" : "--compress \(compression)"
    for (name, option, size) in [("now", "", "512"), ("first", "first", "4K"), ("2", "2", "64K")] {
      let theirs = option.isEmpty ? "" : "-l snapshot.\(option == "2" ? "id" : "name")=\(option)"
      let ours = option.isEmpty ? "" : "--snapshot \(option)"
      _ = try shell("qemu-img convert -f qcow2 \(theirs) -O raw a.qcow2 \(name).raw")
      try disk("copy a.qcow2 \(name).qcow2 \(ours) \(compress) --cluster-size \(size)")
      #expect(
        try shell("qemu-img compare -f qcow2 -F raw \(name).qcow2 \(name).raw")
          .contains("identical"))
      let check = try shell("qemu-img check \(name).qcow2")
      #expect(check.contains("No errors"))
      #expect(try !disk("info \(name).qcow2 --json").contains("base.raw"))
      if size != "512" { #expect(check.contains(" 0.00% compressed") == compression.isEmpty) }
    }
    let blocks = try #require(Int(try shell("stat -c %b first.qcow2").prefix { $0.isNumber }))
    #expect((blocks < 1500) == !compression.isEmpty, "\(blocks)")
    #expect(try disk("copy a.qcow2 now.qcow2", fails: true).contains("there is a file now.qcow2"))
    #expect(
      try disk("copy a.qcow2 b.qcow2 --snapshot third", fails: true)
        .contains("has no snapshot third"))
    #expect(try disk("copy none b.qcow2", fails: true).contains("none"))
    #expect(try shell("ls").split(separator: "\n").allSatisfy { !$0.hasSuffix(".new") })
    #expect(!Files.exists(directory.path("b.qcow2")))
  }

  @Test("lose nothing and find lost room again")
  func repair() throws {
    try disk("create --size 1M a.qcow2")
    _ = try shell("qemu-io -c 'write 0 128k' a.qcow2")
    // The reference count of one more cluster than there is anything in.
    _ = try shell(
      "printf '\\0\\1' | dd of=a.qcow2 bs=1 seek=$((131072 + 2 * 40)) conv=notrunc status=none"
        + " && truncate -s 4M a.qcow2")
    #expect(try disk("check a.qcow2", fails: true).contains("1 lost clusters"))
    #expect(try disk("check --repair a.qcow2").contains("is sound"))
    #expect(try shell("qemu-img check a.qcow2").contains("No errors"))
  }

  @Test("are left alone when something is wrong with the command or the image")
  func refusals() throws {
    try disk("create --size 1M a.qcow2")
    let again = try disk("create --size 1M a.qcow2", fails: true)
    #expect(again.contains("there is a file a.qcow2 already; give another name"), "\(again)")
    _ = try shell("truncate -s 1M base.raw && mkdir -p apart")
    for (arguments, reason) in [
      ("create b.qcow2", "give either --size or --over"),
      ("create --size 1M --over raw:x b.qcow2", "give either --size or --over"),
      ("create --over raw:none b.qcow2", "none"),
      ("create --over a.qcow2 b.qcow2", "give raw:FILE"),
      ("create --size 1M --cluster-size 5 b.qcow2", "cluster"),
      ("create --size 1M --cluster-size 4M b.qcow2", "cluster"),
      ("create --size 1M --cluster-size 1G b.qcow2", "<bytes>"),
      ("create --over raw:../base.raw apart/b.qcow2", "--bases DIR"),
      ("info base.raw", "as raw:FILE to --over and --onto"),
      ("flatten none.qcow2", "none.qcow2"), ("commit a.qcow2", "is based on nothing"),
      ("rebase --onto raw:none a.qcow2", "none"),
    ] {
      #expect(try disk(arguments, fails: true).contains(reason), "disk \(arguments)")
      #expect(!Files.exists(directory.path("b.qcow2")))
    }
    for size in ["512", "4096", "2K", "64k", "2M"] {
      try disk("create --size 1M --cluster-size \(size) c.qcow2")
      #expect(try shell("qemu-img info c.qcow2").contains("cluster_size: "))
      _ = try shell("rm c.qcow2")
    }
    try disk("create --over raw:../base.raw --bases .. apart/b.qcow2")
    // One that somebody writes to, and one that others only read.
    try disk("create --over raw:base.raw b.qcow2")
    let machine = try RunningProgram(
      nil, ["--disk", directory.path("b.qcow2") + ",format=qcow2"])
    _ = try machine.control()
    #expect(try disk("flatten b.qcow2", fails: true).contains("in use by another VMM"))
  }
}

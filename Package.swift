// swift-tools-version: 6.2
import Foundation
import PackageDescription

// CARREL_PART=machine leaves out everything that needs a network library, so
// that work on devices, display and VMM builds in a fraction of the time;
// CARREL_PART=fuzz is that and the fuzz driver.
// CARREL_ONLY=Target,… builds the named targets and what they depend on, which is
// quicker still while working on one of them.
let part = Context.environment["CARREL_PART"] ?? "all"
let wholeProject = part == "all"

let strict: [SwiftSetting] = [
  .swiftLanguageMode(.v6),
  .treatAllWarnings(as: .error),
]

func library(_ name: String, _ dependencies: [Target.Dependency] = []) -> Target {
  .target(name: name, dependencies: dependencies, swiftSettings: strict)
}

func program(
  _ name: String, _ dependencies: [Target.Dependency], linkerSettings: [LinkerSetting] = []
) -> Target {
  .executableTarget(
    name: name, dependencies: dependencies, swiftSettings: strict, linkerSettings: linkerSettings)
}

// One process to a guest and one to a viewer: each starts in milliseconds and holds
// little memory of its own when it brings just the parts of Swift's libraries that it
// uses, instead of loading and relocating all of them.
let selfContained: [LinkerSetting] = [
  .unsafeFlags(["-static-stdlib"]),
  // What FoundationEssentials, which ArgumentParser uses, is made of.
  .linkedLibrary("_FoundationCollections"), .linkedLibrary("_FoundationCShims"),
  .linkedLibrary("swiftSynchronization"),
]

func tests(_ name: String, _ dependencies: [Target.Dependency]) -> Target {
  .testTarget(
    name: name + "Tests", dependencies: dependencies, exclude: [], swiftSettings: strict)
}

func system(_ name: String, _ pkgConfig: String, _ debianPackage: String) -> Target {
  .systemLibrary(name: name, pkgConfig: pkgConfig, providers: [.apt([debianPackage])])
}

/// Where the headers of a library are, without linking with it, which is what
/// `pkgConfig:` would do. A manifest that failed is asked again, while an answer of
/// nothing would be kept after the library was installed.
func headerFlags(of library: String) -> [String] {
  let output = Pipe()
  let process = Process()
  process.executableURL = URL(fileURLWithPath: "/usr/bin/env")
  process.arguments = ["pkg-config", "--cflags-only-I", library]
  process.standardOutput = output
  let flags = (try? process.run()).flatMap { try? output.fileHandleForReading.readToEnd() } ?? nil
  guard let flags, !flags.isEmpty else {
    fatalError("pkg-config does not find \(library): run 'make deps'")
  }
  return String(decoding: flags, as: UTF8.self).split(whereSeparator: \.isWhitespace).map(
    String.init)
}

let arguments: Target.Dependency = .product(
  name: "ArgumentParser", package: "swift-argument-parser")
let logging: Target.Dependency = .product(name: "Logging", package: "swift-log")

// The graph of DESIGN section 2. `make layering` checks every import against it.
var targets: [Target] = [
  .target(name: "CLinux"),
  .target(name: "CKVM"),
  system("CVNCServer", "libvncserver", "libvncserver-dev"),
  .target(name: "CDeflate", linkerSettings: [.linkedLibrary("z")]),
  system("CVNCClient", "libvncclient", "libvncserver-dev"),
  system("CPixman", "pixman-1", "libpixman-1-dev"),
  // Loads its libraries itself, when they are needed.
  .target(name: "CCairo", cSettings: [.unsafeFlags(headerFlags(of: "pangocairo"))]),
  system("CPNG", "libpng", "libpng-dev"),
  system("CXXHash", "libxxhash", "libxxhash-dev"),
  system("CZlib", "zlib", "zlib1g-dev"),
  system("CZstd", "libzstd", "libzstd-dev"),
  // Loads its library itself, on hosts that need it.
  .target(name: "CZydis"),
  // The x87 instructions of the host's processor, for hosts that need them completed.
  .target(name: "CX87"),

  library("CarrelBase"),
  library("LinuxSystem", ["CarrelBase", "CLinux"]),
  library("KVM", ["LinuxSystem", "CKVM"]),
  library("DeviceModel", ["CarrelBase"]),
  library("QMP", ["CarrelBase"]),
  library("RFB", ["CarrelBase"]),
  library("Devices", ["DeviceModel"]),
  library("Display", ["DeviceModel", "CPixman"]),
  library("DisplayLink", ["Display", "LinuxSystem"]),
  library("Disk", ["DeviceModel", "LinuxSystem", "CZlib", "CZstd"]),
  library("Snapshot", ["DeviceModel", "LinuxSystem", "CXXHash"]),
  library(
    "Machine", ["KVM", "Devices", "Disk", "DisplayLink", "Snapshot", "CPNG", "CZydis", "CX87"]),
  library("VNCServer", ["DisplayLink", "CVNCServer", "CDeflate", "CCairo"]),

  program(
    "carrel-vmm", ["Machine", "VNCServer", "QMP", "Disk", arguments], linkerSettings: selfContained),
  program("carrel-display", ["VNCServer", arguments], linkerSettings: selfContained),

  library("TestSupport", ["LinuxSystem"]),
  // What the processor itself makes of machine code, for tests.
  .target(name: "CNativeCode"),
  tests("CarrelBase", ["CarrelBase"]),
  tests("LinuxSystem", ["LinuxSystem"]),
  tests("KVM", ["KVM", "TestSupport"]),
  tests("DeviceModel", ["DeviceModel"]),
  tests("QMP", ["QMP", "TestSupport"]),
  tests("RFB", ["RFB"]),
  tests("Devices", ["Devices", "Snapshot", "TestSupport"]),
  tests("Display", ["Display", "Devices"]),
  tests("DisplayLink", ["DisplayLink", "TestSupport"]),
  tests("Disk", ["Disk", "TestSupport"]),
  tests("Snapshot", ["Snapshot", "TestSupport"]),
  tests("Machine", ["Machine", "QMP", "TestSupport", "CNativeCode", "VNCServer"]),
  tests("VNCServer", ["VNCServer", "CVNCClient", "TestSupport"]),
]

var packages: [Package.Dependency] = [
  .package(url: "https://github.com/apple/swift-argument-parser", from: "1.8.2"),
  .package(url: "https://github.com/apple/swift-log", from: "1.16.2"),
]

// The fuzz driver only links with libFuzzer's runtime; `make fuzz` asks for it.
if part == "fuzz" {
  targets += [
    .target(name: "CFuzzer"),
    program(
      "carrel-fuzz",
      [
        "CFuzzer", "Devices", "Disk", "Display", "Machine", "QMP", "RFB", "Snapshot", "VNCServer",
      ]),
  ]
}

if wholeProject {
  packages += [
    .package(url: "https://github.com/apple/swift-nio", from: "2.101.2"),
    .package(url: "https://github.com/apple/swift-nio-ssl", from: "2.37.6"),
    .package(url: "https://github.com/apple/swift-crypto", from: "4.5.2"),
    .package(url: "https://github.com/apple/swift-certificates", from: "1.21.1"),
    .package(url: "https://github.com/hummingbird-project/hummingbird", from: "2.28.1"),
    .package(url: "https://github.com/swift-server/async-http-client", from: "1.37.0"),
    .package(url: "https://github.com/swift-server/swift-service-lifecycle", from: "2.13.0"),
    .package(url: "https://github.com/groue/GRDB.swift", from: "7.10.0"),
    .package(url: "https://github.com/jpsim/Yams", from: "6.2.2"),
  ]
  targets += [
    program(
      "carrel-bench",
      ["CNativeCode", "CVNCClient", "Devices", "Disk", "Display", "KVM", "LinuxSystem", "QMP"])
  ]
  let nio: [Target.Dependency] = [
    .product(name: "NIOCore", package: "swift-nio"),
    .product(name: "NIOPosix", package: "swift-nio"),
  ]
  let services: Target.Dependency = .product(
    name: "ServiceLifecycle", package: "swift-service-lifecycle")
  targets += [
    system("CNettle", "nettle", "nettle-dev"),
    library("ControlAPI", ["CarrelBase"]),
    library("Brokering", ["CarrelBase"]),
    library("Store", ["Brokering", .product(name: "GRDB", package: "GRDB.swift")]),
    library(
      "Identity",
      [
        "Brokering", "RFB", "CNettle", .product(name: "Crypto", package: "swift-crypto"),
        .product(name: "_CryptoExtras", package: "swift-crypto"),
        .product(name: "X509", package: "swift-certificates"),
      ]),
    // "Configuration" is the name of a module that AsyncHTTPClient brings along.
    library("SiteConfiguration", ["Brokering", .product(name: "Yams", package: "Yams")]),
    library("Supervisor", ["Brokering", "QMP", "LinuxSystem", services, logging]),
    library(
      "Gateway",
      nio + [
        "RFB", "Brokering", "LinuxSystem", services, logging,
        .product(name: "NIOSSL", package: "swift-nio-ssl"),
        .product(name: "NIOHTTP1", package: "swift-nio"),
        .product(name: "NIOWebSocket", package: "swift-nio"),
        .product(name: "NIOTLS", package: "swift-nio"),
      ]),
    library(
      "ControlServer",
      [
        "ControlAPI", "Brokering", services, logging,
        .product(name: "Hummingbird", package: "hummingbird"),
      ]),
    library(
      "ControlClient",
      ["ControlAPI", .product(name: "AsyncHTTPClient", package: "async-http-client")]),
    program(
      "carreld",
      [
        "Store", "Supervisor", "Gateway", "ControlServer", "Identity", "SiteConfiguration",
        arguments,
        services, logging, .product(name: "NIOSSL", package: "swift-nio-ssl"),
      ]),
    program("carrel", ["ControlClient", arguments]),
    tests("ControlAPI", ["ControlAPI"]),
    tests("Brokering", ["Brokering"]),
    tests("Store", ["Store", "TestSupport", .product(name: "GRDB", package: "GRDB.swift")]),
    tests("Identity", ["Identity"]),
    tests(
      "SiteConfiguration",
      ["SiteConfiguration", "TestSupport", .product(name: "Yams", package: "Yams")]),
    tests("Supervisor", ["Supervisor", "TestSupport", "CNativeCode"]),
    tests(
      "Gateway",
      nio + [
        "Gateway", "Identity", "TestSupport", .product(name: "NIOEmbedded", package: "swift-nio"),
        .product(name: "NIOWebSocket", package: "swift-nio"),
      ]),
    tests(
      "ControlServer",
      [
        "ControlServer", "ControlClient", "Store", "TestSupport", logging,
        .product(name: "Yams", package: "Yams"),
      ]),
    // Drives the built programs from outside.
    tests("EndToEnd", ["CNettle", "TestSupport"]),
  ]
}

if let only = Context.environment["CARREL_ONLY"] {
  var wanted = Set(only.split(separator: ",").map(String.init))
  var found = 0
  while found != wanted.count {
    found = wanted.count
    for target in targets where wanted.contains(target.name) {
      for case .byNameItem(let name, _) in target.dependencies { wanted.insert(name) }
    }
  }
  targets.removeAll { !wanted.contains($0.name) }
}

let package = Package(
  name: "carrel",
  platforms: [.macOS(.v15)],
  products: [],
  dependencies: packages,
  targets: targets
)

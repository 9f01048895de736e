# make install: the program, the libraries with their headers and pkg-config file, the bundled models.
include(GNUInstallDirs)
if(TARGET ruvllm)
  install(TARGETS ruvllm RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
endif()
install(TARGETS ruvllm_shared LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR})
install(TARGETS ruvllm_static ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR})
install(DIRECTORY ${PROJECT_SOURCE_DIR}/include/ruvllm DESTINATION ${CMAKE_INSTALL_INCLUDEDIR} FILES_MATCHING PATTERN "*.h")
install(DIRECTORY ${PROJECT_SOURCE_DIR}/models/ DESTINATION ${CMAKE_INSTALL_DATADIR}/ruvllm/models
  FILES_MATCHING PATTERN "*.gguf" PATTERN "MODEL_CARD.md" PATTERN "SHA256SUMS")
configure_file(${PROJECT_SOURCE_DIR}/cmake/ruvllm.pc.in ${CMAKE_BINARY_DIR}/ruvllm.pc @ONLY)
install(FILES ${CMAKE_BINARY_DIR}/ruvllm.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
